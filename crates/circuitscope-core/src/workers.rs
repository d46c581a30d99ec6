//! Independent pieces of work on several cores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use rayon::ThreadPoolBuilder;

use crate::Exec;

/// Cores that this process may use; one where the system does not say.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each of `0..count`, up to `lanes` pieces at a time, and hands the results to `take` on the
/// calling thread, in the order in which they come.
///
/// Each lane has a `state` of its own, and its share of `exec`'s threads as a rayon pool: what `work` itself runs in
/// parallel does not wait for another lane's. There are no more lanes than threads. After an error no further piece
/// begins, those that run see their flag set, and the first error is returned.
///
/// # Errors
/// The first one of `work` or `take`.
///
/// ```
/// use circuitscope_core::{Exec, workers};
///
/// let mut squares = vec![0; 10];
/// let square = |(): &(), at: usize, _: &_| Ok::<_, ()>(at * at);
/// workers::run(Exec::host(2), 2, 10, || (), square, |at, found| Ok(squares[at] = found))?;
/// assert_eq!(squares[..4], [0, 1, 4, 9]);
/// # Ok::<(), ()>(())
/// ```
pub fn run<S: Send, R: Send, E: Send>(
    exec: Exec,
    lanes: usize,
    count: usize,
    state: impl Fn() -> S,
    work: impl Fn(&S, usize, &AtomicBool) -> Result<R, E> + Sync,
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let threads = exec.lanes(lanes).min(count);
    if threads < 2 {
        let state = state();
        return (0..count).try_for_each(|at| take(at, work(&state, at, &stop)?));
    }
    let share = (exec.host_threads / threads).max(1);
    // Results that nobody has taken yet hold memory.
    let (send, receive) = mpsc::sync_channel(threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (send, state) = (send.clone(), state());
            let (next, stop, work) = (&next, &stop, &work);
            let pieces = move || {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver is gone once another piece has failed.
                    if at >= count || send.send((at, work(&state, at, stop))).is_err() {
                        break;
                    }
                }
            };
            scope.spawn(
                move || match ThreadPoolBuilder::new().num_threads(share).build() {
                    Ok(pool) => pool.install(pieces),
                    // All threads share one pool, then.
                    Err(_) => pieces(),
                },
            );
        }
        drop(send);
        let mut results = receive.into_iter();
        let outcome = results.try_for_each(|(at, result)| take(at, result?));
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once_on_any_number_of_threads() {
        for threads in [0, 1, 3, 50] {
            let mut times = vec![0; 20];
            let work = |(): &(), at: usize, _: &AtomicBool| Ok::<_, ()>(at);
            let done = run(
                Exec::host(50),
                threads,
                20,
                || (),
                work,
                |at, found| {
                    assert_eq!(at, found);
                    times[at] += 1;
                    Ok(())
                },
            );
            assert_eq!((done, times), (Ok(()), vec![1; 20]));
        }
    }

    #[test]
    fn an_error_stops_the_others() {
        let begun = AtomicUsize::new(0);
        let work = |(): &(), at: usize, stop: &AtomicBool| {
            begun.fetch_add(1, Ordering::Relaxed);
            if at == 0 {
                return Err("failed");
            }
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Ok(())
        };
        assert_eq!(
            run(Exec::host(2), 2, 1000, || (), work, |_, ()| Ok(())),
            Err("failed")
        );
        assert!(begun.into_inner() <= 3);
        // One that cannot be taken, too.
        let quick = |(): &(), _: usize, _: &AtomicBool| Ok(());
        assert_eq!(
            run(Exec::host(2), 2, 10, || (), quick, |_, ()| Err("full")),
            Err("full")
        );
    }

    #[test]
    fn each_lane_has_its_share_of_the_threads() {
        for (threads, lanes, share) in [(2, 2, 1), (6, 2, 3), (2, 5, 1)] {
            let work =
                |(): &(), _: usize, _: &AtomicBool| Ok::<_, ()>(rayon::current_num_threads());
            let check = |_, found| {
                assert_eq!(found, share, "{threads} threads in {lanes} lanes");
                Ok(())
            };
            run(Exec::host(threads), lanes, 8, || (), work, check).unwrap();
        }
    }

    #[test]
    fn one_thread_is_the_callers_own() {
        let own = thread::current().id();
        let work = |(): &(), _: usize, _: &AtomicBool| Ok::<_, ()>(thread::current().id());
        let check = |_, found| {
            assert_eq!(found, own);
            Ok(())
        };
        run(Exec::serial(), 8, 8, || (), work, check).unwrap();
    }
}
