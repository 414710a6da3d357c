//! Skeleton of demo.
