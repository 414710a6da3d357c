//! Skeleton of relay.
