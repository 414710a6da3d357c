//! Reads server-sent events (WHATWG HTML, section 9.2.6) as far as our own feed uses them.

/// Bytes of one event at most: a session with all its labels is far below.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Its `event:` line.
    pub(super) name: String,
    /// Its `data:` lines.
    pub(super) data: String,
}

/// An event grew beyond all measure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes bytes as they come, gives events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    message: Message,
    id: Option<String>,
    last_id: Option<String>,
}

impl Reader {
    /// Takes the next bytes and returns the events that they complete.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() + self.message.data.len() > EVENT_BYTES_MAX {
                    return Err(TooLong);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            messages.extend(self.handle_line(line.strip_suffix('\r').unwrap_or(&line)));
        }
        Ok(messages)
    }

    /// The id of the last event, to come back with; ids without an event count too.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn handle_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            if let Some(id) = self.id.take() {
                self.last_id = Some(id);
            }
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.message.name = value.into(),
            "id" => self.id = Some(value.into()),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments have no name; `retry` is for browsers.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = ": hello\nid: 1-0\nretry: 1000\n\nevent: a\ndata: {\"ü\":\ndata:1}\nid: 1-7\n\n: keep-alive\n\n\
        data: x\r\n\r\nid: 1-9\n\nevent: unfinished\nid: 1-10\n";

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        for size in 1..TEXT.len() {
            let mut reader = Reader::default();
            let mut messages = Vec::new();
            for bytes in TEXT.as_bytes().chunks(size) {
                messages.extend(reader.handle_bytes(bytes).unwrap());
            }
            let expected = [("a", "{\"ü\":\n1}"), ("", "x")]
                .map(|(name, data)| Message { name: name.into(), data: data.into() });
            assert_eq!(messages, expected);
            assert_eq!(reader.last_id(), Some("1-9"));
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = Reader::default();
        let chunk = vec![b'x'; EVENT_BYTES_MAX];
        assert_eq!(reader.handle_bytes(&chunk), Ok(vec![]));
        assert_eq!(reader.handle_bytes(b"y"), Err(TooLong));
    }
}
