//! The one set of command definitions of command line, debug port and workload scripts.
