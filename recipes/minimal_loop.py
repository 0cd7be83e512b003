"""Adversarial fine-tuning in a loop that you own: plain Accelerate, textadv only for the attack and the forward pass.

    accelerate launch --quiet recipes/minimal_loop.py [--steps 300]

Prints the losses on the way and the clean and robust accuracy on test rows at the end.
"""

from textadv.runs.screen import parser as reader

parser = reader(__doc__)
parser.add_argument("--steps", type=int, default=300, help="optimizer steps (default: 300)")
steps = parser.parse_args().steps

# After the command line, which need not wait for the seconds that these take.
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from textadv.attacks import L2, ThreatModel, pgd
from textadv.data import encode, load_splits
from textadv.models import forward, load_classifier
from textadv.values.losses import cross_entropy
from textadv.values.spaces import Embeddings

accelerator = Accelerator()
set_seed(0)
splits = load_splits("builtin:reviews")
loaded = load_classifier("builtin:tiny-encoder", splits.labels)
rows = encode(splits.train, loaded.tokenizer, max_length=48)
test = encode(splits.test, loaded.tokenizer, max_length=48)
threat = ThreatModel(Embeddings(), L2(relative_radius=0.3)).resolved(loaded.model)
attack = pgd(threat, steps=3)
model, optimizer = accelerator.prepare(loaded.model, torch.optim.AdamW(loaded.model.parameters(), lr=2e-3))

order = torch.Generator().manual_seed(accelerator.process_index)
for step in range(steps):
    batch = rows.batch(torch.randint(len(rows), (64,), generator=order).tolist()).to(accelerator.device)
    chosen = torch.arange(64, device=accelerator.device) < 16
    attacked = attack(model, batch.rows(chosen), step=step)
    losses = [cross_entropy(forward(model, part), part) for part in (batch.rows(~chosen), attacked.batch)]
    accelerator.backward(torch.cat(losses).mean())
    optimizer.step()
    optimizer.zero_grad()
    if step % 50 == 0 or step == steps - 1:
        accelerator.print(f"step {step}  clean {losses[0].mean():.3f}  adversarial {losses[1].mean():.3f}")

batch = test.batch(range(200)).to(accelerator.device)
result = pgd(threat, steps=20, early_stop=True, select="most_damaging")(model, batch)
right = (forward(model, batch).argmax(dim=1) == batch.labels).float().mean()
accelerator.print(f"clean accuracy on {len(batch)} test rows: {right:.1%}")
accelerator.print(f"robust accuracy on {len(batch)} test rows: {1 - result.success.float().mean():.1%}")
