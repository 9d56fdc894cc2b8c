/// Octets as a source of decisions. Once they are used up, there is nothing left to do.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// Decisions from these octets.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The next octet.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next two octets.
    pub fn word(&mut self) -> Option<u16> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*first))
    }

    /// The next four octets.
    pub fn long(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    /// The next `count` octets, or what is left.
    pub fn octets(&mut self, count: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        first
    }

    /// A distance that is mostly short, and now and then arbitrary: near edges is where things go wrong.
    pub fn distance(&mut self) -> Option<u32> {
        let kind = self.byte()?;
        Some(match kind {
            0..=127 => i32::from(kind.cast_signed() - 16).cast_unsigned(),
            128..=247 => (i32::from(self.word()?) - 0x4000).cast_unsigned(),
            _ => self.long()?,
        })
    }
}
