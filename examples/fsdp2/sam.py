"""Handwritten digits with sharded weights; compare with ``diff plain.py sam.py``.

Run: torchrun --nproc-per-node 2 plain.py, then the same with sam.py.
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import flatmin

dist.init_process_group("gloo")
torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
parts = train_test_split(images.astype("float32") / 16, labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
train = TensorDataset(x_train, y_train)
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=32, sampler=sampler)

model = torch.nn.Sequential(
    torch.nn.Linear(64, 128),
    torch.nn.LayerNorm(128),
    torch.nn.ReLU(),
    torch.nn.Linear(128, 10),
)
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
for layer in model:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
optimizer = flatmin.SAM(optimizer, model, rho=0.05)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)

for epoch in range(10):
    sampler.set_epoch(epoch)
    for x, y in loader:
        for _ in optimizer.probes():
            loss = cross_entropy(model(x), y)
            loss.backward()
        optimizer.step()
    scheduler.step()

model.eval()
with torch.no_grad():
    wrong = model(x_test).argmax(1) != y_test
if dist.get_rank() == 0:
    print(f"test error {100 * wrong.float().mean():.2f} %")
dist.destroy_process_group()
