//! Jute, ZooKeeper's encoding: numbers big-endian, texts and lists with their length before them.

use std::fmt;

/// The longest answer that is read: the names of some 500,000 nodes.
pub(super) const LIMIT: usize = 32 << 20;

/// An answer that is cut off, or no answer of a ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer that isn't ZooKeeper's")
    }
}

/// A message that is being written. Its length is written before it at the end.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        Self(bytes)
    }

    pub(super) fn int(mut self, number: i32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, number: i64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn flag(mut self, flag: bool) -> Self {
        self.0.push(flag.into());
        self
    }

    /// Writes bytes or a text.
    pub(super) fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut this = self.int(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        this.0.extend(bytes);
        this
    }

    /// Returns the message with its length.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// A message that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns what has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// Reads bytes. A length of -1 stands for none.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        match self.int()? {
            -1 => Ok(&[]),
            length => self.take(usize::try_from(length).map_err(|_| Malformed)?),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Reads a list of texts.
    pub(super) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = match self.int()? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_| Malformed)?,
        };
        // Each text has its length, so a count that is a lie asks for no memory.
        if count > self.0.len() / 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.text().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_was_written() {
        let message = Writer::new().int(-7).long(1 << 40).flag(true).bytes("é").int(2).bytes("a").bytes("").finish();
        assert_eq!(message[..4], 32_u32.to_be_bytes());
        let mut read = Reader::new(&message[4..]);
        assert_eq!((read.int(), read.long(), read.take(1)), (Ok(-7), Ok(1 << 40), Ok(&[1][..])));
        assert_eq!((read.text(), read.texts()), (Ok("é"), Ok(vec!["a".to_owned(), String::new()])));
        assert_eq!(read.int(), Err(Malformed));
    }

    #[test]
    fn lengths_that_are_a_lie_are_refused() {
        for lie in [i32::MAX, -2, i32::MIN] {
            let message = Writer::new().int(lie).int(0).finish();
            let read = Reader::new(&message[4..]);
            assert_eq!((read.clone().bytes(), read.clone().texts()), (Err(Malformed), Err(Malformed)), "{lie}");
        }
        let none = Writer::new().int(-1).finish();
        assert_eq!((Reader::new(&none[4..]).bytes(), Reader::new(&none[4..]).texts()), (Ok(&[][..]), Ok(Vec::new())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut read = Reader::new(&bytes);
            let _ = (read.texts(), read.text(), read.bytes(), read.long(), read.int());
            let _ = super::super::protocol::Stat::read(&mut Reader::new(&bytes));
            let _ = super::super::protocol::Event::read(&mut Reader::new(&bytes));
        }
    }
}
