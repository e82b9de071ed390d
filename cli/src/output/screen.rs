//! A whole screen of a terminal, given back as it was however the command ends: also behind a panic.

use std::io::{self, IsTerminal as _};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt as _;
use ratatui::DefaultTerminal;

use crate::{
    error::Failure,
    top::{
        self, Key,
        draw::{Look, draw},
    },
};

/// The screen, until it is dropped.
pub(crate) struct Screen {
    terminal: DefaultTerminal,
    keys: EventStream,
    colour: bool,
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Is there a person at a screen?
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn failed(error: &io::Error) -> Failure {
    Failure::file("cannot use the terminal", error, "`featherctl status` shows the same once")
}

impl Screen {
    /// Takes the screen. A panic gives it back before it says what it is about.
    pub(super) fn take(colour: bool) -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| {
            ratatui::restore();
            failed(&error)
        })?;
        Ok(Self { terminal, keys: EventStream::new(), colour })
    }

    /// May it be coloured?
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    pub(crate) fn draw(&mut self, screen: &top::Screen, look: Look) -> Result<(), Failure> {
        self.terminal.draw(|frame| draw(screen, look, frame)).map(drop).map_err(|error| failed(&error))
    }

    /// The next key that means something; none for whatever else happens, such as another size. Cancelling loses nothing.
    pub(crate) async fn key(&mut self) -> Result<Option<Key>, Failure> {
        match self.keys.next().await {
            Some(Ok(Event::Key(event))) if event.kind != KeyEventKind::Release => Ok(meaning(event)),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(failed(&error)),
            // The terminal is gone.
            None => Ok(Some(Key::Quit)),
        }
    }
}

/// What a key means.
fn meaning(event: KeyEvent) -> Option<Key> {
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(event.code, KeyCode::Char('c' | 'd')).then_some(Key::Quit);
    }
    Some(match event.code {
        KeyCode::Char('q') | KeyCode::Esc => Key::Quit,
        KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => Key::Next,
        KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => Key::Previous,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown | KeyCode::Char(' ') => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::First,
        KeyCode::End | KeyCode::Char('G') => Key::Last,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('r') => Key::Turn,
        KeyCode::Char(digit @ '1'..='9') => Key::Number(digit as usize - '1' as usize),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::{Key, meaning};

    #[test]
    fn keys_mean_what_the_help_says() {
        let plain = |code| meaning(KeyEvent::new(code, KeyModifiers::NONE));
        let quits = [plain(KeyCode::Char('q')), meaning(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL))];
        assert_eq!(quits, [Some(Key::Quit); 2]);
        assert_eq!(plain(KeyCode::Tab), Some(Key::Next));
        assert_eq!(plain(KeyCode::Char('1')), Some(Key::Number(0)));
        assert_eq!(plain(KeyCode::Char('5')), Some(Key::Number(4)));
        assert_eq!(plain(KeyCode::Char('0')), None);
        assert_eq!(meaning(KeyEvent::new(KeyCode::Char('s'), KeyModifiers::CONTROL)), None, "no sorting by ^S");
    }
}
