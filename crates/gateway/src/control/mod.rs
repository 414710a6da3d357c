//! Skeleton of control.
