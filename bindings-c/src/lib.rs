//! dlock for C.
