/** The same module for `import`. */
import dlock from './index.js'

export default dlock
export const {
  connect,
  acquire,
  tryAcquire,
  request,
  query,
  contenders,
  breakLock,
  register,
  Client,
  Lease,
  DlockError,
  LockTimeoutError,
  LockLostError,
  NotHeldError,
  BackendError,
  InvalidArgumentError,
  UnsupportedError,
  InternalError,
  DeadlockError,
  version,
} = dlock
