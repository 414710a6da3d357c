//! What waits for the app.

use std::collections::VecDeque;

use pulsegate_core::v1::Window;

use crate::event::Event;

/// Messages, and what happened between them. Of what happened since the latest message only the newest stays, so that
/// messages alone bound it.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    /// Messages since the beginning.
    pub(super) put: u64,
    /// Messages taken since the beginning.
    pub(super) taken: u64,
    bytes: usize,
}

impl Events {
    pub(super) fn put_message(&mut self, seq: u64, text: bool, payload: &[u8]) {
        self.put += 1;
        self.bytes += payload.len();
        self.queue.push_back(Event::Message { seq, text, payload: payload.into() });
    }

    pub(super) fn put_reset(&mut self, undelivered: usize) {
        let (before, state) = self.take_states();
        self.queue.push_back(Event::Reset { undelivered: before.unwrap_or(0) + undelivered });
        self.queue.extend(state);
    }

    pub(super) fn put_state(&mut self, state: Event) {
        let (reset, _) = self.take_states();
        self.queue.extend(reset.map(|undelivered| Event::Reset { undelivered }));
        self.queue.push_back(state);
    }

    /// Takes what stands behind the latest message.
    fn take_states(&mut self) -> (Option<usize>, Option<Event>) {
        let (mut reset, mut state) = (None, None);
        while let Some(event) = self.queue.pop_back_if(|event| !matches!(event, Event::Message { .. })) {
            match event {
                Event::Reset { undelivered } => reset = Some(undelivered),
                Event::Live { .. } | Event::Detached | Event::Unsupported | Event::Closed { .. } => {
                    state = Some(event);
                }
                Event::Message { .. } => {}
            }
        }
        (reset, state)
    }

    pub(super) fn take(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        if let Event::Message { payload, .. } = &event {
            self.taken += 1;
            self.bytes -= payload.len();
        }
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_within(&self, limit: Window) -> bool {
        self.put - self.taken < limit.messages as u64 && self.bytes < limit.bytes
    }
}
