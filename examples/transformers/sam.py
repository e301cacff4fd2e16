"""Handwritten digits with a Trainer; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import tempfile

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import StackDataset
from transformers import TrainingArguments

from flatmin.integrations.transformers import SharpnessAwareTrainer

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 128),
            torch.nn.BatchNorm1d(128),
            torch.nn.ReLU(),
            torch.nn.Linear(128, 10),
        )

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


model = Net()
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    num_train_epochs=10,
    per_device_train_batch_size=64,
    learning_rate=1e-2,
    lr_scheduler_type="cosine",
    use_cpu=True,
    report_to=[],
)
data = StackDataset(x=x_train, labels=y_train)
SharpnessAwareTrainer(model, arguments, train_dataset=data, rho=0.05).train()

model.eval()
with torch.no_grad():
    wrong = model.net(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
