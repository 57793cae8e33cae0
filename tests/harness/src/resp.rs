//! The ends of values in Redis' protocol, and the words of a command.

/// The progress of a search for the end of a stream's first value.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    at: usize,
    /// The number of values that are still missing in the first value.
    missing: u64,
}

/// The error of bytes that are not RESP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign;

impl Scan {
    /// Returns the length of the first value in `bytes`, or `None` if the value isn't complete. After `None` the search
    /// continues at the same place, so `bytes` has to begin with the same bytes.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, Foreign> {
        self.missing = self.missing.max(1);
        while self.missing > 0 {
            let rest = &bytes[self.at..];
            if rest.first().is_some_and(|kind| !b"+-:$*_#,(!=%~>|".contains(kind)) {
                return Err(Foreign);
            }
            let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
            let count = || {
                let digits = std::str::from_utf8(&rest[1..end]).map_err(|_| Foreign)?;
                digits.parse::<i64>().map(|count| count.max(0) as u64).map_err(|_| Foreign)
            };
            let (mut length, mut inside) = (end + 2, 0);
            match rest[0] {
                b'$' | b'!' | b'=' if &rest[1..end] != b"-1" => length += count()? as usize + 2,
                b'*' | b'~' | b'>' => inside = count()?,
                b'%' => inside = count()? * 2,
                b'|' => inside = count()? * 2 + 1,
                _ => {}
            }
            if rest.len() < length {
                return Ok(None);
            }
            self.at += length;
            self.missing = self.missing - 1 + inside;
        }
        Ok(Some(std::mem::take(self).at))
    }
}

/// Takes the complete values from the front of `bytes`. If the rest is not RESP, takes the rest as one value.
pub(crate) fn take(scan: &mut Scan, bytes: &mut Vec<u8>) -> (Vec<Vec<u8>>, Result<(), Foreign>) {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        match scan.next(bytes) {
            Ok(Some(length)) => {
                let rest = bytes.split_off(length);
                values.push(std::mem::replace(bytes, rest));
            }
            Ok(None) => break,
            Err(foreign) => {
                values.push(std::mem::take(bytes));
                return (values, Err(foreign));
            }
        }
    }
    (values, Ok(()))
}

/// Returns the words of a command, which is an array of strings. Returns nothing for other values.
pub(crate) fn words(command: &[u8]) -> Vec<Vec<u8>> {
    let line = |at: usize| {
        let end = at + command[at..].windows(2).position(|two| two == b"\r\n")?;
        let count: usize = std::str::from_utf8(command.get(at + 1..end)?).ok()?.parse().ok()?;
        Some((count, end + 2))
    };
    let read = || {
        let (count, mut at) = line(0)?;
        let mut words = Vec::new();
        for _ in 0..count {
            let (length, begin) = line(at)?;
            words.push(command.get(begin..begin + length)?.to_vec());
            at = begin + length + 2;
        }
        Some(words)
    };
    read().unwrap_or_default()
}

/// Returns true if the command gets a reply in its turn. Commands that subscribe are answered by pushes.
pub(crate) fn is_answered(command: &[u8]) -> bool {
    !words(command).first().is_some_and(|name| name.to_ascii_lowercase().ends_with(b"subscribe"))
}

/// Returns true if the server sends this value without a request.
pub(crate) fn is_push(value: &[u8]) -> bool {
    value.first() == Some(&b'>')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_it_ends_however_it_comes_in() {
        let values: [&[u8]; 8] = [
            b"+OK\r\n",
            b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n",
            b"$-1\r\n",
            b"%1\r\n+a\r\n*2\r\n:1\r\n_\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n",
            b"|1\r\n+k\r\n+v\r\n:5\r\n",
        ];
        let all = values.concat();
        for step in 1..all.len() {
            let (mut scan, mut bytes, mut seen) = (Scan::default(), Vec::new(), Vec::new());
            for part in all.chunks(step) {
                bytes.extend(part);
                let (values, fine) = take(&mut scan, &mut bytes);
                assert_eq!(fine, Ok(()));
                seen.extend(values);
            }
            assert_eq!(seen, values);
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn what_is_no_resp_is_told() {
        assert_eq!(Scan::default().next(b"PING\r\n"), Err(Foreign));
        assert_eq!(Scan::default().next(b"*x\r\n"), Err(Foreign));
    }

    #[test]
    fn a_command_has_words() {
        assert_eq!(words(b"*2\r\n$3\r\nGET\r\n$2\r\nab\r\n"), [b"GET".to_vec(), b"ab".to_vec()]);
        assert!(words(b"+OK\r\n").is_empty());
        assert!(!is_answered(b"*2\r\n$10\r\nSSUBSCRIBE\r\n$1\r\na\r\n"));
        assert!(is_answered(b"*1\r\n$4\r\nPING\r\n"));
    }
}
