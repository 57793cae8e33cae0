//! The requests and answers of ZooKeeper's client protocol, as its servers define them since 3.5.

use super::jute::{Malformed, Reader, Writer};

/// The number in place of a request's in the header of a watch event.
pub(super) const EVENT: i32 = -1;
/// The number of a login.
pub(super) const LOGIN: i32 = -4;

/// The errors of the server that are known here.
pub(super) mod code {
    pub(in super::super) const OK: i32 = 0;
    pub(in super::super) const NO_NODE: i32 = -101;
    pub(in super::super) const NO_AUTH: i32 = -102;
    pub(in super::super) const NO_CHILDREN_FOR_EPHEMERALS: i32 = -108;
    pub(in super::super) const NODE_EXISTS: i32 = -110;
    pub(in super::super) const SESSION_EXPIRED: i32 = -112;
    pub(in super::super) const AUTH_FAILED: i32 = -115;
    pub(in super::super) const SESSION_MOVED: i32 = -118;
    pub(in super::super) const NOT_READ_ONLY: i32 = -119;
    pub(in super::super) const UNIMPLEMENTED: i32 = -6;
    pub(in super::super) const CONNECTION_LOSS: i32 = -4;
    pub(in super::super) const OPERATION_TIMEOUT: i32 = -7;
    pub(in super::super) const THROTTLED: i32 = -127;
    pub(in super::super) const QUOTA_EXCEEDED: i32 = -125;
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// The server deletes it when it has had children and has none any more.
    Container,
    /// It ends with its session. The server adds a number to its name.
    EphemeralSequential,
}

/// A request, with paths as the server knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Create {
        path: String,
        data: Vec<u8>,
        kind: NodeKind,
        acl: Acl,
    },
    Delete {
        path: String,
    },
    Exists {
        path: String,
        watch: bool,
    },
    Data {
        path: String,
        watch: bool,
    },
    SetData {
        path: String,
        data: Vec<u8>,
    },
    Children {
        path: String,
        watch: bool,
    },
    /// Waits until the server of the connection knows what the leader knew. A leader that has been replaced, and doesn't
    /// know it, answers too.
    Sync {
        path: String,
    },
    /// Deletes a node that doesn't exist: the answer shows that a majority has taken in what came before. A refusal does
    /// that as well.
    Confirm {
        path: String,
    },
    CloseSession,
}

// An enum of one's own instead of a flag: the creator's rights are of use only after a login.
/// The rights to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acl {
    /// Everybody may do everything.
    Open,
    /// Whoever has logged in as its creator.
    Creator,
}

impl NodeKind {
    fn flags(self) -> i32 {
        match self {
            Self::EphemeralSequential => 3,
            Self::Container => 4,
        }
    }
}

impl Request {
    /// Returns the path that it concerns.
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Create { path, .. }
            | Self::Delete { path }
            | Self::Exists { path, .. }
            | Self::Data { path, .. }
            | Self::SetData { path, .. }
            | Self::Children { path, .. }
            | Self::Sync { path }
            | Self::Confirm { path } => path,
            Self::CloseSession => "",
        }
    }

    /// Returns true if the request may be executed twice. The name of a deleted node is never used again.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Create { kind: NodeKind::EphemeralSequential, .. } | Self::Delete { .. })
    }

    /// Returns true if its answer shows that the leader has a majority: a write is answered when a majority has it.
    pub(super) fn is_a_write(&self) -> bool {
        match self {
            Self::Exists { .. } | Self::Data { .. } | Self::Children { .. } => false,
            Self::Sync { .. } => mutant!("zookeeper-sync-trusted"),
            _ => true,
        }
    }

    /// Returns the message with this number.
    pub(super) fn encode(&self, number: i32) -> Vec<u8> {
        let start = |operation: i32| Writer::new().int(number).int(operation);
        match self {
            Self::Create { path, data, kind, acl } => {
                let operation = if *kind == NodeKind::Container { 19 } else { 15 };
                let (scheme, id) = match acl {
                    Acl::Open => ("world", "anyone"),
                    Acl::Creator => ("auth", ""),
                };
                let all_rights = 31;
                start(operation)
                    .bytes(path)
                    .bytes(data)
                    .int(1)
                    .int(all_rights)
                    .bytes(scheme)
                    .bytes(id)
                    .int(kind.flags())
                    .finish()
            }
            Self::Delete { path } | Self::Confirm { path } => start(2).bytes(path).int(-1).finish(),
            Self::Exists { path, watch } => start(3).bytes(path).flag(*watch).finish(),
            Self::Data { path, watch } => start(4).bytes(path).flag(*watch).finish(),
            Self::SetData { path, data } => start(5).bytes(path).bytes(data).int(-1).finish(),
            Self::Children { path, watch } => start(8).bytes(path).flag(*watch).finish(),
            Self::Sync { path } => start(9).bytes(path).finish(),
            Self::CloseSession => start(-11).finish(),
        }
    }
}

/// Returns the message of a login.
pub(super) fn login(scheme: &str, secret: &[u8]) -> Vec<u8> {
    Writer::new().int(LOGIN).int(100).int(0).bytes(scheme).bytes(secret).finish()
}

/// The first message on a connection: it begins a session, or continues one.
pub(super) struct Connect<'a> {
    pub(super) last_seen: i64,
    pub(super) timeout_ms: i32,
    /// 0: a new session.
    pub(super) session: i64,
    pub(super) password: &'a [u8],
}

impl Connect<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Never a server that is cut off from the leader and only answers reads.
        let read_only = false;
        Writer::new()
            .int(0)
            .long(self.last_seen)
            .int(self.timeout_ms)
            .long(self.session)
            .bytes(self.password)
            .flag(read_only)
            .finish()
    }
}

/// The answer to [`Connect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    /// The negotiated timeout; 0: the session has ended.
    pub(super) timeout_ms: i32,
    pub(super) session: i64,
    pub(super) password: Vec<u8>,
}

impl Connected {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = Reader::new(bytes);
        read.int()?;
        Ok(Self { timeout_ms: read.int()?, session: read.long()?, password: read.bytes()?.to_vec() })
    }
}

/// The header of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: i32,
    pub(super) zxid: i64,
    pub(super) code: i32,
}

impl Header {
    pub(super) fn read(read: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { number: read.int()?, zxid: read.long()?, code: read.int()? })
    }
}

/// What the server tells of a node, as far as it is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// The transaction that created the node.
    pub(super) created: i64,
    /// The session that the node ends with; 0: none.
    pub(super) session: i64,
}

impl Stat {
    pub(super) fn read(read: &mut Reader<'_>) -> Result<Self, Malformed> {
        let created = read.long()?;
        for _ in 0..3 {
            read.long()?;
        }
        for _ in 0..3 {
            read.int()?;
        }
        Ok(Self { created, session: read.long()? })
    }
}

/// A watch that has fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) path: String,
}

impl Event {
    pub(super) fn read(read: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (_kind, _state) = (read.int()?, read.int()?);
        Ok(Self { path: read.text()?.to_owned() })
    }
}
