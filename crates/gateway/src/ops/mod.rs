//! Skeleton of ops.
