//! One line of a script, read from the left to the right. Errors know the column.

/// What is wrong with a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A line and how far it was read. Errors are a place in it (octets from its start) and a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// A message about a place in the line.
pub(super) type Wrong = (usize, String);

impl<'a> Cursor<'a> {
    /// At the start of a line, whose comment is left out.
    pub(super) fn new(line: &'a str) -> Self {
        let text = line.find("//").map_or(line, |comment| &line[..comment]);
        Self { text: text.trim_end(), at: 0 }.at_next()
    }

    fn at_next(mut self) -> Self {
        self.skip();
        self
    }

    fn skip(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Where the next word begins.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Whether the next is `text`.
    pub(super) fn sees(&self, text: &str) -> bool {
        self.rest().starts_with(text)
    }

    /// Takes `text` if it is the next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let seen = self.sees(text);
        if seen {
            self.at += text.len();
            self.skip();
        }
        seen
    }

    /// Takes `word` if it is the next whole word.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let same = ahead.word() == word;
        if same {
            *self = ahead;
        }
        same
    }

    /// The next word: up to a space, a comma, or an angle bracket. Empty at one of those.
    pub(super) fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || ",<>".contains(c)).unwrap_or(rest.len());
        self.at += end;
        self.skip();
        &rest[..end]
    }

    /// The words up to the next comma, or the end.
    pub(super) fn words(&mut self) -> Vec<&'a str> {
        let mut words = Vec::new();
        while !self.is_empty() && !self.sees(",") {
            let word = self.word();
            if word.is_empty() {
                break;
            }
            words.push(word);
        }
        words
    }

    /// A number; the error says what is to be counted.
    pub(super) fn number<T: core::str::FromStr>(&mut self, what: &str) -> Result<T, Wrong> {
        let place = self.at;
        let word = self.word();
        word.parse().map_err(|_| (place, format!("{what} is a number that fits, not `{word}`")))
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Result<(), Wrong> {
        if self.is_empty() {
            return Ok(());
        }
        Err((self.at, format!("the line should end here, before `{}`", self.rest())))
    }
}

/// The column of a place.
pub(super) fn column(line: &str, place: usize) -> usize {
    line.get(..place).map_or(line.len(), |before| before.chars().count()) + 1
}
