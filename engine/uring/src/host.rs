//! What runs a reactor on its core: glommio, named in this file and nowhere else.
//!
//! The reactor is one task of the executor and does its I/O on its own ring. The host gives it a pinned thread, a
//! way to park, and background work on `DmaFile` (`BufferedFile` where the file system has no O_DIRECT) in a task
//! queue with fewer shares, so that preparing extents never takes the core from serving.
//!
//! Parking: a reactor that is alone sleeps in its ring. Beside background work it has to sleep here, and an executor
//! cannot wait for a foreign ring, but it can read a file. A task of its own keeps one read of the signal of the ring's
//! waker outstanding across all parks; whatever adds to that eventfd completes the read.
//!
//! Yielding: glommio 0.9 goes to sleep with runnable tasks when its preempt timer fires between its poll for I/O
//! and its run of the tasks, which a thread that loses its core for a moment does meet (one park in 50,000 under
//! load, with a timer of 1 ms). So its timer is switched off here, the host counts the time itself, a yield is a
//! sleep too short to be one, and every sleep has a second timer behind the first.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Once;
use std::task::{Poll, Waker as TaskWaker};
use std::time::{Duration, Instant};

use glommio::io::{BufferedFile, DmaBuffer, DmaFile, OpenOptions};
use glommio::timer::Timer;
use glommio::{GlommioError, Latency, LocalExecutorBuilder, Placement, Shares, Task, TaskQueueHandle};
use rustix::process::{Resource, getrlimit};

use crate::affinity;
use crate::file::{self, Access, FileError, FileOperation};
use crate::op::Errno;
use crate::ring::{RingError, RingOperation};
use crate::waker::Eventfd;

/// Locked memory in bytes that glommio insists on.
const LOCKED_MEMORY_BYTES: u64 = 512 << 10;
/// glommio's preempt timer: never, for the reason at the top.
const PREEMPT: Duration = Duration::from_secs(24 * 3600);
/// How long a reactor may keep the core while background work runs.
const TURN_BESIDE_WORK: Duration = Duration::from_millis(1);
/// How long a reactor may keep the core while other tasks are alive, which mostly wait.
const TURN_BESIDE_TASKS: Duration = Duration::from_millis(10);
/// A sleep that lets everything else run once.
const YIELD: Duration = Duration::from_micros(1);
/// Longer than a yield takes to be over, so that a yield never puts the thread to sleep.
const SPIN: Duration = Duration::from_micros(5);
/// The longest that a sleep can be overslept.
const BACKSTOP: Duration = Duration::from_millis(100);
/// Entries of each of glommio's rings: background work only.
const RING_DEPTH: usize = 32;
/// Bytes glommio registers for its own I/O; longer buffers come from the heap.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Of 1,000 that the reactor has: background work's part of a busy core.
const BACKGROUND_SHARES: usize = 100;
/// Long enough to put an executor to sleep.
const SHORTEST_PARK: Duration = Duration::from_micros(200);
/// Bytes zeroed by one write: long enough for the disk, short enough beside commits.
const ZERO_BYTES: usize = 256 << 10;

/// Where a host runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// The core to be pinned to; `None` leaves the thread to the scheduler.
    pub core: Option<usize>,
}

/// A host could not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// Locked memory is limited below what glommio insists on.
    LockedMemory {
        /// The limit in bytes.
        bytes: u64,
    },
    /// No io_uring.
    Ring(RingError),
    /// The process may not use this core, or the machine has none of this number.
    NoSuchCore {
        /// The core asked for.
        core: usize,
    },
    /// The executor was refused something else.
    Executor(Errno),
}

/// File work that may take its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackgroundOp {
    /// Makes a file of unwritten space under a temporary name, flushes it, renames it and flushes the directory.
    CreateExtent {
        /// Its directory.
        directory: PathBuf,
        /// Its name.
        name: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Writes zeros over a part of a file and flushes them.
    Zero {
        /// Which file.
        path: PathBuf,
        /// First byte, a multiple of 4,096.
        position: u64,
        /// Number of bytes, a multiple of 4,096.
        bytes: u64,
    },
    /// Removes a file and flushes the directory.
    Remove {
        /// Which file.
        path: PathBuf,
    },
}

/// The end of a [`BackgroundOp`].
#[derive(Debug, PartialEq, Eq)]
pub struct BackgroundDone {
    /// The caller's name for it.
    pub key: u64,
    /// Bytes allocated or written; 0 for a removal.
    pub result: Result<u64, FileError>,
}

/// The executor as its reactor sees it. Clones are the same host.
#[derive(Clone)]
pub struct Host(Rc<Inner>);

struct Inner {
    /// Something happened since the last park.
    woken: Cell<bool>,
    /// When the reactor last came back from a park or a yield.
    resumed: Cell<Instant>,
    /// The parked reactor.
    parked: Cell<Option<TaskWaker>>,
    finished: RefCell<Vec<BackgroundDone>>,
    /// The tasks that read signals, and how to end their reads.
    listeners: RefCell<Vec<(Eventfd, Task<()>)>>,
    /// The reactor is over.
    ended: Cell<bool>,
    running: Cell<usize>,
    /// Tasks of [`Host::spawn`] that are not over.
    beside: Cell<usize>,
    queue: TaskQueueHandle,
}

impl Host {
    /// Whether this process may have a host at all. To be asked before anything is measured or written that a
    /// refusal would make worthless.
    pub fn check() -> Result<(), HostError> {
        check_locked_memory()?;
        check_io_uring()
    }

    /// What the first host of a process pays for all of them. The main thread should, before it starts others.
    pub fn prepare() -> Result<(), HostError> {
        throwaway_executor()
    }

    /// Runs a reactor on the calling thread until its future is done.
    pub fn run<F, Fut>(config: &HostConfig, reactor: F) -> Result<Fut::Output, HostError>
    where
        F: FnOnce(Self) -> Fut,
        Fut: Future,
    {
        Self::check()?;
        throwaway_executor()?;
        let placement = match config.core {
            Some(core) if !affinity::cores().contains(&core) => return Err(HostError::NoSuchCore { core }),
            Some(core) => Placement::Fixed(core),
            None => Placement::Unbound,
        };
        let executor = LocalExecutorBuilder::new(placement)
            .preempt_timer(PREEMPT)
            .spin_before_park(SPIN)
            .ring_depth(RING_DEPTH)
            .io_memory(IO_MEMORY_BYTES)
            .make()
            .map_err(|error| HostError::Executor(errno(&error)))?;
        Ok(executor.run(async {
            let queue = glommio::executor().create_task_queue(
                Shares::Static(BACKGROUND_SHARES),
                Latency::NotImportant,
                "background",
            );
            let host = Self(Rc::new(Inner::new(queue)));
            let output = reactor(host.clone()).await;
            host.end().await;
            output
        }))
    }

    /// Lets the signal of a ring end parks from now on. Once per ring.
    #[expect(unsafe_code, reason = "glommio's file takes a descriptor over")]
    pub fn listen(&self, signal: &Eventfd) -> Result<(), HostError> {
        let fd = signal.as_fd().try_clone_to_owned().map_err(|error| HostError::Executor(error.into()))?;
        // SAFETY: the descriptor is a duplicate made for this file, which alone owns and closes it.
        let file = unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) };
        let inner = Rc::clone(&self.0);
        let task = glommio::spawn_local(async move {
            // The count does not matter, that there is one does.
            while file.read_at(0, 8).await.is_ok() {
                if inner.ended.get() {
                    // Its drop would only begin to.
                    let _ = file.close().await;
                    return;
                }
                inner.wake();
            }
            // Without the read no park would end: a reactor that never sleeps again is the lesser evil.
            tracing::error!("the signal of the ring cannot be read: parks end at once from now on");
            while !inner.ended.get() {
                inner.wake();
                glommio::executor().yield_task_queue_now().await;
            }
        });
        self.0.listeners.borrow_mut().push((signal.clone(), task));
        Ok(())
    }

    /// Ends what listens. A task that is left with a read in the kernel is never freed, nor is its file closed.
    async fn end(&self) {
        self.0.ended.set(true);
        let listeners = self.0.listeners.take();
        for (signal, task) in listeners {
            signal.add();
            task.await;
        }
    }

    /// Whether nothing else is alive on this core: the reactor may block the thread.
    pub fn is_alone(&self) -> bool {
        self.running() == 0 && self.0.beside.get() == 0
    }

    /// Whether other tasks of this core have waited long enough; never while there are none, because every return
    /// to the executor costs system calls and allocations of its own. One reading of the clock at most.
    pub fn need_yield(&self) -> bool {
        let turn = match self.running() {
            _ if self.is_alone() => return false,
            0 => TURN_BESIDE_TASKS,
            _ => TURN_BESIDE_WORK,
        };
        self.0.resumed.get().elapsed() >= turn
    }

    /// Lets the executor run its other tasks and its own I/O.
    pub async fn yield_now(&self) {
        self.yield_from(YIELD).await;
    }

    /// A sleep that is over before it is begun lets nothing else run, and on a machine with a slow clock every
    /// short one is: then the next one is longer.
    async fn yield_from(&self, shortest: Duration) {
        let mut limit = shortest;
        while !self.sleep(limit, || false).await {
            limit = (2 * limit).max(YIELD);
        }
    }

    /// Sleeps until a signal came, background work is finished, or the time is over; at once if the first two
    /// happened since the last park. May end early: look again at what was waited for.
    pub async fn park(&self, limit: Option<Duration>) {
        self.sleep(limit.unwrap_or(BACKSTOP).min(BACKSTOP), || self.0.woken.replace(false)).await;
    }

    /// Sleeps until the time is over or, after some wake, `is_over` says so; whether it slept at all.
    async fn sleep(&self, limit: Duration, is_over: impl Fn() -> bool) -> bool {
        let mut slept = false;
        let mut timer = Timer::new(limit);
        let mut backstop = Timer::new(limit + BACKSTOP);
        poll_fn(|context| {
            if is_over() {
                return Poll::Ready(());
            }
            self.0.parked.set(Some(context.waker().clone()));
            match (Pin::new(&mut timer).poll(context), Pin::new(&mut backstop).poll(context)) {
                (Poll::Pending, Poll::Pending) => {
                    slept = true;
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
        self.0.parked.set(None);
        self.0.resumed.set(Instant::now());
        slept
    }

    /// Starts file work; [`Host::finished`] has the end of it under the same key, and a park ends with it.
    /// `access` says whether the files are written past the page cache.
    pub fn background(&self, key: u64, access: Access, op: BackgroundOp) {
        let inner = Rc::clone(&self.0);
        inner.running.set(inner.running.get() + 1);
        self.spawn_into_queue(async move {
            let result = execute(access, op).await;
            inner.running.set(inner.running.get() - 1);
            inner.finished.borrow_mut().push(BackgroundDone { key, result });
            inner.wake();
        });
    }

    /// Appends the file work that has ended.
    pub fn finished(&self, out: &mut Vec<BackgroundDone>) {
        out.append(&mut self.0.finished.borrow_mut());
    }

    /// File work that was started and has not ended.
    pub fn running(&self) -> usize {
        self.0.running.get()
    }

    /// Runs something else beside the reactor, with the shares of background work.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let inner = Rc::clone(&self.0);
        inner.beside.set(inner.beside.get() + 1);
        self.spawn_into_queue(async move {
            future.await;
            inner.beside.set(inner.beside.get() - 1);
        });
    }

    fn spawn_into_queue(&self, future: impl Future<Output = ()> + 'static) {
        glommio::spawn_local_into(future, self.0.queue)
            .expect("the host's own queue lives as long as it")
            .detach();
    }
}

impl Inner {
    fn new(queue: TaskQueueHandle) -> Self {
        Self {
            woken: Cell::new(false),
            resumed: Cell::new(Instant::now()),
            parked: Cell::new(None),
            finished: RefCell::new(Vec::new()),
            listeners: RefCell::new(Vec::new()),
            ended: Cell::new(false),
            running: Cell::new(0),
            beside: Cell::new(0),
            queue,
        }
    }

    fn wake(&self) {
        self.woken.set(true);
        if let Some(task) = self.parked.take() {
            task.wake();
        }
    }
}

fn check_locked_memory() -> Result<(), HostError> {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if bytes < LOCKED_MEMORY_BYTES => Err(HostError::LockedMemory { bytes }),
        _ => Ok(()),
    }
}

/// glommio ends the process without io_uring, so ask before it does.
fn check_io_uring() -> Result<(), HostError> {
    match io_uring::IoUring::new(4) {
        Ok(_) => Ok(()),
        Err(error) => Err(HostError::Ring(RingError::new(RingOperation::Setup, error))),
    }
}

/// The first park of a process registers for membarrier, which takes tens of milliseconds once other threads run.
/// An executor that does nothing but park pays that before the real one serves.
fn throwaway_executor() -> Result<(), HostError> {
    static FIRST: Once = Once::new();
    let mut made = Ok(());
    FIRST.call_once(|| {
        let executor =
            LocalExecutorBuilder::new(Placement::Unbound).ring_depth(4).io_memory(IO_MEMORY_BYTES).make();
        made = executor
            .map(|executor| {
                executor.run(async {
                    let _ = Timer::new(SHORTEST_PARK).await;
                })
            })
            .map_err(|error| HostError::Executor(errno(&error)));
    });
    made
}

async fn execute(access: Access, op: BackgroundOp) -> Result<u64, FileError> {
    match op {
        BackgroundOp::CreateExtent { directory, name, bytes } => {
            create_extent(access, &directory, &name, bytes).await
        }
        BackgroundOp::Zero { path, position, bytes } => {
            let file = Target::open(access, &path, OpenOptions::new().read(true).write(true)).await?;
            file.write_zeros(&path, position, bytes).await?;
            file.flush(&path).await?;
            file.close(&path).await?;
            Ok(bytes)
        }
        BackgroundOp::Remove { path } => {
            glommio::io::remove(&path).await.map_err(failed(FileOperation::Remove, &path))?;
            sync_parent(&path).await?;
            Ok(0)
        }
    }
}

async fn create_extent(access: Access, directory: &Path, name: &str, bytes: u64) -> Result<u64, FileError> {
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.tmp"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = Target::open(access, &temporary, &options).await?;
    if let Err(error) = fill_extent(&file, &temporary, bytes).await {
        // A full disk has given it what it had left. What fails here is left to the next start.
        let _ = file.close(&temporary).await;
        let _ = glommio::io::remove(&temporary).await;
        return Err(error);
    }
    file.rename(&path).await?;
    file.close(&path).await?;
    sync_parent(&path).await?;
    Ok(bytes)
}

/// Gives a new file its space, for good.
async fn fill_extent(file: &Target, path: &Path, bytes: u64) -> Result<(), FileError> {
    match file.allocate(bytes).await {
        // A file system that cannot allocate is made to: the commit path never does.
        Err(error) if errno(&error) == Errno(libc::EOPNOTSUPP) => file.write_zeros(path, 0, bytes).await?,
        allocated => allocated.map_err(failed(FileOperation::Allocate, path))?,
    }
    // Flushes size and allocation too: without them the data could not be read back.
    file.flush(path).await
}

/// A file past the page cache or, where the file system has no O_DIRECT, through it.
enum Target {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

impl Target {
    async fn open(access: Access, path: &Path, options: &OpenOptions) -> Result<Self, FileError> {
        let opened = match access {
            Access::Direct | Access::DirectCreate => options.dma_open(path).await.map(Self::Direct),
            Access::Buffered => options.buffered_open(path).await.map(Self::Buffered),
        };
        opened.map_err(failed(FileOperation::Open, path))
    }

    /// Gives the file this size in unwritten space.
    async fn allocate(&self, bytes: u64) -> Result<(), GlommioError<()>> {
        match self {
            Self::Direct(file) => file.pre_allocate(bytes, false).await,
            Self::Buffered(file) => file.pre_allocate(bytes, false).await,
        }
    }

    async fn write_zeros(&self, path: &Path, position: u64, bytes: u64) -> Result<(), FileError> {
        let end = position + bytes;
        let mut zeros: Option<Rc<DmaBuffer>> = None;
        for at in (position..end).step_by(ZERO_BYTES) {
            let length = ZERO_BYTES.min(usize::try_from(end - at).unwrap_or(ZERO_BYTES));
            match self {
                Self::Direct(file) => {
                    let kept = zeros.take().filter(|zeros| zeros.len() == length);
                    let piece = kept.unwrap_or_else(|| {
                        let mut fresh = file.alloc_dma_buffer(length);
                        fresh.as_bytes_mut().fill(0);
                        Rc::new(fresh)
                    });
                    zeros = Some(Rc::clone(&piece));
                    write_direct(file, path, piece, at).await?;
                }
                Self::Buffered(file) => write_buffered(file, path, vec![0; length], at).await?,
            }
        }
        Ok(())
    }

    async fn flush(&self, path: &Path) -> Result<(), FileError> {
        let flushed = match self {
            Self::Direct(file) => file.fdatasync().await,
            Self::Buffered(file) => file.fdatasync().await,
        };
        flushed.map_err(failed(FileOperation::Flush, path))
    }

    async fn rename(&mut self, path: &Path) -> Result<(), FileError> {
        let renamed = match self {
            Self::Direct(file) => file.rename(path).await,
            Self::Buffered(file) => file.rename(path).await,
        };
        renamed.map_err(failed(FileOperation::Rename, path))
    }

    async fn close(self, path: &Path) -> Result<(), FileError> {
        let closed = match self {
            Self::Direct(file) => file.close().await,
            Self::Buffered(file) => file.close().await,
        };
        closed.map_err(failed(FileOperation::Write, path))
    }
}

/// A write past the page cache that is cut short within the file means that the disk gave up.
async fn write_direct(
    file: &DmaFile,
    path: &Path,
    buffer: Rc<DmaBuffer>,
    position: u64,
) -> Result<(), FileError> {
    let bytes = buffer.len();
    let written = file.write_rc_at(buffer, position).await.map_err(failed(FileOperation::Write, path))?;
    if written == bytes { Ok(()) } else { Err(FileError::new(FileOperation::Write, path, Errno::IO)) }
}

/// A write through the page cache may stop where the memory or the disk does; what is left says why.
async fn write_buffered(
    file: &BufferedFile,
    path: &Path,
    mut bytes: Vec<u8>,
    mut position: u64,
) -> Result<(), FileError> {
    while !bytes.is_empty() {
        let rest = bytes.clone();
        let written = file.write_at(rest, position).await.map_err(failed(FileOperation::Write, path))?;
        if written == 0 {
            return Err(FileError::new(FileOperation::Write, path, Errno::IO));
        }
        position += written as u64;
        bytes.drain(..written);
    }
    Ok(())
}

/// On glommio's blocking thread, because its `Directory::sync` is an fdatasync, which need not flush names.
async fn sync_parent(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
    glommio::executor().spawn_blocking(move || file::sync_directory(&directory)).await
}

fn failed(operation: FileOperation, path: &Path) -> impl FnOnce(GlommioError<()>) -> FileError {
    move |error| FileError::new(operation, path, errno(&error))
}

fn errno(error: &GlommioError<()>) -> Errno {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => os_error(source),
        _ => Errno::IO,
    }
}

fn os_error(source: &io::Error) -> Errno {
    Errno(source.raw_os_error().unwrap_or(libc::EIO))
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockedMemory { bytes } => write!(
                f,
                "only {} KiB of memory may be locked, {} are needed\nhelp: `ulimit -l unlimited`, in systemd \
                 `LimitMEMLOCK=infinity`, in docker `--ulimit memlock=-1`",
                bytes >> 10,
                LOCKED_MEMORY_BYTES >> 10
            ),
            Self::Ring(error) => error.fmt(f),
            Self::NoSuchCore { core } => {
                write!(f, "core {core} cannot be used\nhelp: `taskset -p $$` shows the cores of this process")
            }
            Self::Executor(errno) => write!(f, "cannot start the executor: {errno}"),
        }
    }
}

impl std::error::Error for HostError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a machine whose clock takes longer to read than the shortest sleep lasts: AddressSanitizer makes one.
    #[test]
    fn a_yield_lets_others_run_even_when_its_time_is_over_before_it_begins() {
        let ran = Host::run(&HostConfig::default(), async |host| {
            let ran = Rc::new(Cell::new(false));
            let flag = Rc::clone(&ran);
            host.spawn(async move { flag.set(true) });
            for _ in 0..100 {
                host.yield_from(Duration::ZERO).await;
            }
            ran.get()
        });
        assert_eq!(ran, Ok(true));
    }
}
