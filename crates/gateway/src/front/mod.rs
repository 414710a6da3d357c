//! Skeleton of front.
