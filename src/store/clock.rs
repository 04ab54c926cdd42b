//! The file server's clock.

use std::time::SystemTime;

use super::Store;

impl Store {
    /// What the server's clock says.
    pub(super) fn server_now(&self) -> SystemTime {
        SystemTime::now()
    }
}
