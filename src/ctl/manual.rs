use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::output::print;
use super::{Cli, Error, Exit};

/// `slimctl completion`.
#[derive(Args, Debug)]
pub(super) struct Completion {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self) -> Result<Exit, Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::definition(), "slimctl", &mut script);
        print(&String::from_utf8_lossy(&script));
        Ok(Exit::Clean)
    }
}

/// `slimctl man`.
#[derive(Args, Debug)]
pub(super) struct Man {
    /// Folder for the pages of all commands; without, the page of slimctl goes to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> Result<Exit, Error> {
        let command = Cli::definition();
        match &self.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|source| Error::file(dir, source))?;
                clap_mangen::generate_to(command, dir)
                    .map_err(|source| Error::file(dir, source))?;
            }
            None => {
                let mut page = Vec::new();
                let made = clap_mangen::Man::new(command).render(&mut page);
                made.map_err(Error::machine("manual page"))?;
                print(&String::from_utf8_lossy(&page));
            }
        }
        Ok(Exit::Clean)
    }
}
