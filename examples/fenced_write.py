"""A write with a fencing token: the database rejects the write of a former holder, however late it comes.

No lock can stop a process that sleeps between its last check of the lock and its write. The database can. It stores the
greatest fencing token it has seen and rejects a write with a smaller one.
"""

from __future__ import annotations

import sqlite3
import time

import dlock

client = dlock.connect("memory://fenced-write")
store = sqlite3.connect(":memory:")
store.execute("CREATE TABLE price (item TEXT PRIMARY KEY, cents INTEGER, fence INTEGER NOT NULL)")
store.execute("INSERT INTO price VALUES ('tea', 250, 0)")


def write(lease: dlock.Lease, cents: int) -> bool:
    """Writes if no later holder has written. One statement: the comparison and the write can't be torn apart."""
    changed = store.execute(
        "UPDATE price SET cents = ?, fence = ? WHERE item = 'tea' AND fence <= ?", (cents, lease.fence, lease.fence)
    )
    return changed.rowcount == 1


# A worker without renewal that sleeps past its ttl, as a paused virtual machine would …
with client.lock("price:tea", ttl=0.2, auto_renew=False, on_loss="notify") as sleepy:
    time.sleep(0.3)

    # … so that another one has the lock, and writes.
    with client.lock("price:tea", wait=5) as awake:
        print(f"fence {awake.fence}: written {write(awake, 300)}")

    # The first wakes up and knows nothing yet.
    late = write(sleepy, 199)
    print(f"fence {sleepy.fence}: written {late}")

(cents,) = store.execute("SELECT cents FROM price").fetchone()
print(f"the price is {cents}")
assert not late
assert cents == 300
