//! dlock for Node.
