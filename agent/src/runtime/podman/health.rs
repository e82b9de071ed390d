//! Asks a work container how it is: one small request on its loopback port.

use std::time::Duration;

pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // No pool: a kept connection would go to a container that is gone. No proxy: loopback is never behind one. No
        // redirects: 200 is asked for, by whoever answers on this port.
        let builder = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy();
        builder.redirect(reqwest::redirect::Policy::none()).build().map(Self)
    }

    pub(super) async fn healthy(&self, port: u16, limit: Duration) -> bool {
        let request = self.0.get(format!("http://127.0.0.1:{port}/health")).timeout(limit);
        request.send().await.is_ok_and(|response| response.status().as_u16() == 200)
    }
}
