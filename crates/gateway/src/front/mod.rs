//! Placeholder until the front lands.

#[derive(Clone, Copy)]
pub(crate) enum Rejection {
    Placeholder,
}

impl Rejection {
    pub(crate) const ALL: [Rejection; 1] = [Rejection::Placeholder];

    pub(crate) fn as_str(self) -> &'static str {
        "placeholder"
    }
}

#[derive(Clone, Copy)]
pub(crate) enum DialFailure {
    Placeholder,
}

impl DialFailure {
    pub(crate) const ALL: [DialFailure; 1] = [DialFailure::Placeholder];

    pub(crate) fn as_str(self) -> &'static str {
        "placeholder"
    }
}
