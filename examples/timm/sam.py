"""Handwritten digits with timm's parts; compare with ``diff plain.py sam.py``.

Run: python plain.py, then python sam.py. It takes seconds on a CPU.
"""

import timm
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch.utils.data import DataLoader, TensorDataset

import flatmin

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 1, 8, 8).repeat(2, axis=2).repeat(2, axis=3)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
data = TensorDataset(x_train, y_train)
loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)

model = timm.create_model("test_resnet", in_chans=1, num_classes=10)
optimizer = create_optimizer_v2(model, "adamw", lr=1e-2, weight_decay=0.05)
optimizer = flatmin.SAM(optimizer, model, rho=0.05)
scheduler = CosineLRScheduler(optimizer, t_initial=105, t_in_epochs=False)
mixup = Mixup(mixup_alpha=0.2, num_classes=10)
ema = ModelEmaV3(model, decay=0.95)
criterion = SoftTargetCrossEntropy()

for epoch in range(5):
    for k, (images, labels) in enumerate(loader):
        x, y = mixup(images, labels)
        for _ in optimizer.probes():
            loss = criterion(model(x), y)
            loss.backward()
        dispatch_clip_grad(model.parameters(), 1.0)
        optimizer.step()
        ema.update(model)
        scheduler.step_update(epoch * len(loader) + k + 1)

ema.eval()
with torch.no_grad():
    wrong = ema(x_test).argmax(1) != y_test
print(f"test error {100 * wrong.float().mean():.2f} %")
