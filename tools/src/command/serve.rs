//! `corelog serve`.
