"""Handwritten digits in mixed precision; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. They take a GPU if there is one.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import flatmin

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = (torch.from_numpy(part).to(device) for part in parts)
loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)

model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.BatchNorm1d(128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
optimizer = flatmin.SAM(optimizer, model, rho=0.05)
scaler = torch.amp.GradScaler(device)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

for _ in range(10):
    for x, y in loader:
        for _ in optimizer.probes():
            with torch.autocast(device, torch.float16):
                loss = cross_entropy(model(x), y)
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    scheduler.step()

model.eval()
with torch.no_grad():
    wrong = model(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
