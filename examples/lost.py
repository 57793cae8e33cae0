"""A lost lock stops the work.

A lease can end under its holder: somebody breaks it, the machine sleeps, the backend goes away. Here an operator's
limit ends it, `max_hold`: a job that hangs must not keep the others waiting for ever.
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
with client.lock("import", max_hold=0.2, loss="signal") as lease:
    lease.on_lost(lambda *_: print("told by the callback"))
    assert lease.lost.wait(5)
    assert lease.valid_for() == 0.0
    time.sleep(0.1)

with client.lock("import", wait=1):
    print("the next worker has it")
