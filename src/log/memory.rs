//! A faithful in-process log.

use crate::ids::{EventTime, Offset};
use crate::row::Header;

/// A record as the log keeps it.
#[derive(Debug)]
pub struct StoredRecord {
    pub offset: Offset,
    pub timestamp: EventTime,
    pub key: Option<Box<[u8]>>,
    pub value: Option<Box<[u8]>>,
    pub headers: Box<[Header]>,
}
