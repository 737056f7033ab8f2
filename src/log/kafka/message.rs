//! A fetched message, owned.

use crate::row::Header;

#[derive(Debug)]
pub struct Message {}

impl Message {
    pub fn key(&self) -> Option<&[u8]> {
        None
    }

    pub fn value(&self) -> Option<&[u8]> {
        None
    }

    pub fn headers(&self) -> Vec<Header> {
        Vec::new()
    }
}
