//! What all parts of a running gateway share.
