//! `icecore serve` as a process: what it answered with success is there after the process was killed; told to stop, it
//! finishes what is under way.

#[cfg(feature = "client")]
mod clients;
mod guards;
mod kill;
mod served;
mod stop;
