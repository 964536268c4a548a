//! One file per subcommand.

mod bench;
mod config;
mod consume;
mod log;
mod position;
mod produce;
mod records;
mod serve;
mod topic;

use std::future::Future;

use corelog_client::{Client, ClientConfig};

use crate::cli::{Cli, Command, Server};
use crate::failure::Failure;

/// Runs what was asked for.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let format = cli.format;
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments, format),
        Command::Config(arguments) => config::run(&arguments, format),
        Command::Topic(arguments) => on_runtime(topic::run(&arguments, format)),
        Command::Produce(arguments) => on_runtime(produce::run(&arguments, format)),
        Command::Consume(arguments) => on_runtime(consume::run(&arguments, format)),
        Command::Position(arguments) => on_runtime(position::run(&arguments, format)),
        Command::Records(arguments) => on_runtime(records::run(&arguments, format)),
        Command::Bench(arguments) => bench::run(&arguments, format),
        Command::Log(arguments) => log::run(&arguments, format),
    }
}

/// Runs a command that talks to a broker.
fn on_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("the runtime cannot be started", &error))?;
    runtime.block_on(command)
}

async fn connect(server: &Server, what: &str) -> Result<Client, Failure> {
    let config = ClientConfig { name: "corelog".to_owned(), ..ClientConfig::new([server.server.as_str()]) };
    Client::connect(config).await.map_err(|error| Failure::client(what, &error))
}
