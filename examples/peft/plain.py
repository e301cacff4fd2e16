"""Handwritten digits with LoRA adapters; compare with ``diff plain.py sam.py``.

Run: python plain.py, then the same with sam.py.
"""

import peft
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=32, shuffle=True)

frozen = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
adapter = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["0", "2", "4"])
model = peft.get_peft_model(frozen, adapter)
adapters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(adapters, lr=5e-3)

for _ in range(10):
    for x, y in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

model.eval()
with torch.no_grad():
    wrong = model(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
