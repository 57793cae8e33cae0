"""A lost lock stops the work.

You can lose a lock while you hold it, for example by `break_lock`, a suspended machine or a dead server. In this
example the limit `max_hold` ends the lease, so a job that hangs doesn't block the other workers for ever.
"""

from __future__ import annotations

import time

import dlock

client = dlock.connect("memory://lost")
done = 0

try:
    with client.lock("import", max_hold=0.3) as lease:
        for _ in range(100):
            lease.check()  # raises LockLost; from here on somebody else may be working
            time.sleep(0.02)
            done += 1
except dlock.LockLost as error:
    print(f"stopped after {done} of 100 parts: {error}")

assert 0 < done < 100

# To be told rather than to ask: an Event-like object, or a callback.
with client.lock("import", max_hold=0.2, on_loss="notify") as lease:
    lease.on_lost(lambda *_: print("told by the callback"))
    assert lease.lost.wait(5)
    assert lease.valid_for() == 0.0
    time.sleep(0.1)

with client.lock("import", wait=1):
    print("the next worker has it")
