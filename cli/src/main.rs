//! featherctl: the operator's voice in the fleet. One command per intention; everything is decided by the controller.

mod arguments;
mod commands;
mod confirm;
mod connect;
mod error;
mod follow;
mod limits;
mod outcome;
mod output;
mod top;
mod units;
mod view;

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(arguments::main())
}
