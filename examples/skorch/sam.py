"""Handwritten digits with skorch; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from skorch.callbacks import GradientNormClipping, LRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR

from flatmin.integrations.skorch import SharpnessAware

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = parts


class Net(SharpnessAware, NeuralNetClassifier):
    """A classifier with scikit-learn's interface."""


model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.BatchNorm1d(128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
net = Net(
    model,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    optimizer__rho=0.05,
    lr=0.1,
    max_epochs=10,
    batch_size=64,
    iterator_train__shuffle=True,
    iterator_train__drop_last=True,
    callbacks=[LRScheduler(CosineAnnealingLR, T_max=10), GradientNormClipping(1.0)],
)
net.fit(x_train, y_train)
print(f"test error {100 * (1 - net.score(x_test, y_test)):.2f} %")
