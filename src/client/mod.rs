//! One session with a cluster: retry, backoff, redirect, deadlines.
