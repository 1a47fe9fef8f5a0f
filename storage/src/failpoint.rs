//! Named places at which a test has the process die, as kill -9 would: nothing is flushed, nobody is told.
//!
//! `SERIATIM_FAILPOINT=d3:2` means at the second passage of `d3` since the process started. Only builds with the feature
//! `failpoints` know of it; in all others the functions are empty and the points leave nothing behind.
//!
//! It is not for errors: those come from `SimVfs`. The points are named after the list that `tests/it/killpoints.rs`
//! goes through.

/// Dies here if it is the passage asked for.
pub fn pass(name: &str) {
    #[cfg(feature = "failpoints")]
    armed::pass(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// As `pass`, but what was begun or answered just before still goes out: the process dies some milliseconds later. Until
/// then `is_dying` says so.
pub fn soon(name: &str) {
    #[cfg(feature = "failpoints")]
    armed::soon(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// For what must not happen any more between `soon` and the end.
pub fn is_dying() -> bool {
    #[cfg(feature = "failpoints")]
    return armed::is_dying();
    #[cfg(not(feature = "failpoints"))]
    false
}

/// Whether the next passage is the last: for a point that leaves something half done.
pub fn is_next(name: &str) -> bool {
    #[cfg(feature = "failpoints")]
    return armed::is_next(name);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        false
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    /// Longer than an answer needs to a neighbour on the same machine.
    const LAST_WORDS: Duration = Duration::from_millis(20);

    struct Armed {
        name: String,
        passages_left: AtomicU64,
        dying: AtomicBool,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var("SERIATIM_FAILPOINT").ok()?;
        let (name, passage) = text.split_once(':').expect("SERIATIM_FAILPOINT is name:passage");
        let passages = passage.parse::<u64>().expect("SERIATIM_FAILPOINT is name:passage");
        Some(Armed { name: name.to_owned(), passages_left: AtomicU64::new(passages), dying: AtomicBool::new(false) })
    });

    pub(super) fn pass(name: &str) {
        if due(name).is_some() {
            die(name);
        }
    }

    pub(super) fn soon(name: &str) {
        let Some(armed) = due(name) else { return };
        armed.dying.store(true, Ordering::SeqCst);
        let name = name.to_owned();
        std::thread::spawn(move || {
            std::thread::sleep(LAST_WORDS);
            die(&name);
        });
    }

    pub(super) fn is_dying() -> bool {
        ARMED.as_ref().is_some_and(|armed| armed.dying.load(Ordering::SeqCst))
    }

    pub(super) fn is_next(name: &str) -> bool {
        ARMED.as_ref().is_some_and(|armed| armed.name == name && armed.passages_left.load(Ordering::SeqCst) == 1)
    }

    fn due(name: &str) -> Option<&'static Armed> {
        let armed = ARMED.as_ref().filter(|armed| armed.name == name)?;
        (armed.passages_left.fetch_sub(1, Ordering::SeqCst) == 1).then_some(armed)
    }

    fn die(name: &str) -> ! {
        tracing::error!("dying at failpoint {name}");
        std::process::abort()
    }
}
