//! Scripts, load, histories and their checking.
