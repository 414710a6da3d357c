//! Frame heads (RFC 6455 section 5.2).

/// Which reserved bits the extensions in use may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedBits {
    /// No extension was negotiated: none.
    None,
    /// permessage-deflate (RFC 7692): RSV1 on the first frame of a message.
    Deflate,
    /// An extension that we don't know: any.
    Any,
}
