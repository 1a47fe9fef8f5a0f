//! tokio's runtime for tests, with a limit: a test that hangs fails under its name, and the others go on. Tests name it in
//! their attribute (`crate = "crate::watched"`), and the attribute's own code finds here what it looks for in tokio.

pub use tokio::pin;

pub mod runtime {
    use std::future::Future;
    use std::io;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    /// The kill points take many minutes as a whole.
    const TEST_MAX: Duration = Duration::from_secs(if cfg!(feature = "failpoints") { 1500 } else { 300 });
    /// One that blocks its thread cannot be left: then the process ends.
    const BLOCKED_MAX: Duration = Duration::from_secs(TEST_MAX.as_secs() + 60);

    pub struct Builder(tokio::runtime::Builder);

    pub struct Runtime(tokio::runtime::Runtime);

    impl Builder {
        pub fn new_multi_thread() -> Builder {
            Builder(tokio::runtime::Builder::new_multi_thread())
        }

        pub fn new_current_thread() -> Builder {
            Builder(tokio::runtime::Builder::new_current_thread())
        }

        pub fn enable_all(mut self) -> Builder {
            self.0.enable_all();
            self
        }

        /// # Errors
        /// When the system gives no threads.
        pub fn build(mut self) -> io::Result<Runtime> {
            self.0.build().map(Runtime)
        }
    }

    impl Runtime {
        #[expect(clippy::print_stderr, reason = "the process ends before the test could fail")]
        pub fn block_on<T>(self, test: impl Future<Output = T>) -> T {
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            let (done, waiting) = channel::<()>();
            let watched = name.clone();
            std::thread::spawn(move || {
                if waiting.recv_timeout(BLOCKED_MAX) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("{watched} blocks its thread for {BLOCKED_MAX:?}");
                    std::process::exit(101);
                }
            });
            let outcome = self.0.block_on(async { tokio::time::timeout(TEST_MAX, test).await });
            drop(done);
            outcome.unwrap_or_else(|_| {
                // Its end would wait for whatever blocks.
                self.0.shutdown_background();
                panic!("{name} hangs: it is not done after {TEST_MAX:?}");
            })
        }
    }
}
