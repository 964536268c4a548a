//! One question about every partition of a topic.

use std::future::Future;

use tokio::task::JoinSet;

use crate::error::ClientError;

/// Partitions that are asked about at a time.
const AT_A_TIME: usize = 64;

/// What `ask` says of every partition, in their order. The first failure is the answer to all of it.
pub(crate) async fn of_each<T, F>(partitions: u32, ask: impl Fn(u32) -> F) -> Result<Vec<T>, ClientError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let mut asking = JoinSet::new();
    let mut found = Vec::with_capacity(partitions as usize);
    let mut partitions = 0..partitions;
    loop {
        while asking.len() < AT_A_TIME
            && let Some(partition) = partitions.next()
        {
            let asked = ask(partition);
            asking.spawn(async move { asked.await.map(|said| (partition, said)) });
        }
        match asking.join_next().await {
            Some(answer) => found.push(answer.map_err(|_| ClientError::Closed)??),
            None => break,
        }
    }
    found.sort_unstable_by_key(|(partition, _)| *partition);
    Ok(found.into_iter().map(|(_, said)| said).collect())
}
