//! Whether a value reads as a piece of SQL: it is split into tokens, phrases are folded, and the kinds of
//! the first five tokens that remain are looked up among the fingerprints of injections.

use super::words;

/// Tokens of a fingerprint.
const TOKENS_MAX: usize = 5;
/// Places for tokens: some are read ahead.
const PLACES: usize = TOKENS_MAX + 3;
/// Bytes of a token that are kept.
const TEXT_BYTES_MAX: usize = words::WORD_BYTES_MAX;

// Kinds of tokens; others are the character itself.
const KEYWORD: u8 = b'k';
const UNION: u8 = b'U';
const GROUP: u8 = b'B';
const EXPRESSION: u8 = b'E';
const SQL_TYPE: u8 = b't';
const FUNCTION: u8 = b'f';
const BAREWORD: u8 = b'n';
const NUMBER: u8 = b'1';
const VARIABLE: u8 = b'v';
const STRING: u8 = b's';
const OPERATOR: u8 = b'o';
const LOGIC: u8 = b'&';
const COMMENT: u8 = b'c';
const COLLATE: u8 = b'A';
const COLON: u8 = b':';
const TSQL: u8 = b'T';
const UNKNOWN: u8 = b'?';
const EVIL: u8 = b'X';
const FINGERPRINT: u8 = b'F';
const BACKSLASH: u8 = b'\\';
const NOTHING: u8 = 0;

/// The fingerprint of an injection, if the value is one.
pub(crate) fn sqli(value: &[u8]) -> Option<Vec<u8>> {
    if value.is_empty() {
        return None;
    }
    let try_as = |quote: u8, mysql: bool| {
        let mut reader = Reader::new(value, quote, mysql);
        let found = reader.fingerprint();
        let is_injection = found.is_known() && reader.is_no_false_alarm(&found);
        (is_injection.then(|| found.kinds().to_vec()), reader.reads_otherwise_in_mysql)
    };
    let try_both = |quote: u8| {
        let (found, again) = try_as(quote, false);
        found.or_else(|| again.then(|| try_as(quote, true).0).flatten())
    };
    try_both(NOTHING)
        .or_else(|| value.contains(&b'\'').then(|| try_both(b'\'')).flatten())
        .or_else(|| value.contains(&b'"').then(|| try_as(b'"', true).0).flatten())
}

#[derive(Clone, Copy)]
struct Token {
    kind: u8,
    /// Quotes with which a string begins and ends.
    open: u8,
    close: u8,
    len: u8,
    text: [u8; TEXT_BYTES_MAX],
}

impl Token {
    const NONE: Self = Self { kind: NOTHING, open: 0, close: 0, len: 0, text: [0; TEXT_BYTES_MAX] };

    fn assign(&mut self, kind: u8, text: &[u8]) {
        let kept = &text[..text.len().min(TEXT_BYTES_MAX)];
        self.kind = kind;
        self.len = kept.len() as u8;
        self.text[..kept.len()].copy_from_slice(kept);
    }

    fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    fn first(&self) -> u8 {
        self.text().first().copied().unwrap_or(0)
    }

    /// Whether it is this word, letter case aside.
    fn is(&self, word: &str) -> bool {
        self.text().eq_ignore_ascii_case(word.as_bytes())
    }

    fn is_arithmetic(&self) -> bool {
        self.kind == OPERATOR && self.len == 1 && b"*/-+%".contains(&self.first())
    }

    fn is_unary(&self) -> bool {
        self.kind == OPERATOR
            && match self.text() {
                [byte] => b"+-!~".contains(byte),
                [_, _] => self.text() == b"!!",
                [_, _, _] => self.is("NOT"),
                _ => false,
            }
    }

    /// Whether it may be the first, or the second, word of a phrase.
    fn joins(&self, second: bool) -> bool {
        matches!(self.kind, KEYWORD | BAREWORD | OPERATOR | UNION | FUNCTION | EXPRESSION | TSQL | SQL_TYPE)
            || second && self.kind == LOGIC
    }
}

/// The kinds of the first tokens.
struct Fingerprint {
    kinds: [u8; PLACES],
    len: usize,
}

impl Fingerprint {
    fn kinds(&self) -> &[u8] {
        &self.kinds[..self.len]
    }

    fn is_known(&self) -> bool {
        let mut key = [b'0'; PLACES + 1];
        key[1..=self.len].copy_from_slice(self.kinds());
        self.len > 0 && words::kind(&key[..=self.len]) == Some(FINGERPRINT)
    }
}

struct Reader<'v> {
    value: &'v [u8],
    /// The quote inside of which the value stands; none: it stands by itself.
    quote: u8,
    mysql: bool,
    at: usize,
    tokens: [Token; PLACES],
    /// Tokens that were read, before any were folded.
    read: usize,
    /// Something was read that MySQL reads otherwise.
    reads_otherwise_in_mysql: bool,
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0xa0 | 0)
}

/// How many bytes from the beginning are of a kind.
fn span(text: &[u8], is_of_it: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !is_of_it(*byte)).unwrap_or(text.len())
}

/// Ends a word.
const fn ends_word(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'['
            | b']'
            | b'{'
            | b'}'
            | b'<'
            | b'>'
            | b':'
            | b'\\'
            | b'?'
            | b'='
            | b'@'
            | b'!'
            | b'#'
            | b'~'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'&'
            | b'|'
            | b'^'
            | b'%'
            | b'('
            | b')'
            | b','
            | b'\''
            | b';'
            | b'\t'
            | b'\n'
            | 0x0b
            | 0x0c
            | b'\r'
            | b'"'
            | 0xa0
            | 0
    )
}

/// Ends the name of a variable.
const fn ends_name(byte: u8) -> bool {
    match byte {
        b'[' | b']' | b'{' | b'}' | 0xa0 => false,
        b'`' => true,
        other => ends_word(other),
    }
}

impl<'v> Reader<'v> {
    fn new(value: &'v [u8], quote: u8, mysql: bool) -> Self {
        let tokens = [Token::NONE; PLACES];
        Self { value, quote, mysql, at: 0, tokens, read: 0, reads_otherwise_in_mysql: false }
    }

    fn fingerprint(&mut self) -> Fingerprint {
        let len = self.fold();
        if len > 2 {
            // A backtick that opens nothing at the end is a comment in PHP.
            let last = &mut self.tokens[len - 1];
            if last.kind == BAREWORD && last.open == b'`' && last.len == 0 && last.close == NOTHING {
                last.kind = COMMENT;
            }
        }
        let mut found = Fingerprint { kinds: [0; PLACES], len };
        for (kind, token) in found.kinds.iter_mut().zip(&self.tokens[..len]) {
            *kind = token.kind;
        }
        if found.kinds().contains(&EVIL) {
            found.kinds[0] = EVIL;
            found.len = 1;
            self.tokens[0].assign(EVIL, b"X");
            self.tokens[1].kind = NOTHING;
        }
        found
    }

    /// Byte at a place; past the end there is a zero.
    fn byte(&self, at: usize) -> u8 {
        self.value.get(at).copied().unwrap_or(0)
    }

    /// Whether a known fingerprint is not just one of what people write.
    fn is_no_false_alarm(&self, found: &Fingerprint) -> bool {
        let kinds = found.kinds();
        let [first, second, third, ..] = &self.tokens;
        // SQL Server logs nothing that holds this word.
        if kinds.len() > 1
            && kinds.last() == Some(&COMMENT)
            && memchr::memmem::find(self.value, b"sp_password").is_some()
        {
            return true;
        }
        match kinds {
            [_, UNION] => self.read != 2,
            [_, _] if second.first() == b'#' => false,
            [BAREWORD, COMMENT] if second.first() != b'/' => false,
            [NUMBER, COMMENT] => {
                if second.first() == b'/' || self.read > 2 {
                    return true;
                }
                // Only a plain number before the comment: `1234--`, not `1234-abc--`.
                let after = usize::from(first.len);
                let (one, two) = (self.byte(after), self.byte(after + 1));
                one <= 32 || one >= 0x80 || one == b'/' && two == b'*' || one == b'-' && two == b'-'
            }
            [_, _] => !(second.len > 2 && second.first() == b'-'),
            [STRING, OPERATOR | LOGIC, STRING] => {
                // …foo" + "bar…: the value goes on where its quotes end.
                first.open == NOTHING && third.close == NOTHING && first.close == third.open
            }
            [STRING, LOGIC, BAREWORD]
            | [BAREWORD, LOGIC, NUMBER]
            | [NUMBER, LOGIC, NUMBER | VARIABLE | STRING] => self.read != 3,
            // `INTO OUTFILE`, `INTO DUMPFILE`; other phrases are what people write.
            [_, KEYWORD, _] => second.len >= 5 && second.text()[..4].eq_ignore_ascii_case(b"INTO"),
            _ => true,
        }
    }

    // Folding.

    /// Reads the next token to a place; false at the end.
    fn next_to(&mut self, place: usize) -> bool {
        let mut token = Token::NONE;
        let more = self.next(&mut token);
        self.tokens[place] = token;
        self.read += usize::from(more);
        more
    }

    /// Reads and folds; how many tokens remain.
    fn fold(&mut self) -> usize {
        let mut last_comment = Token::NONE;
        // Tokens so far, and how many of them are folded for good.
        let (mut count, mut left) = (0, 0);
        let mut more = true;
        while more {
            more = self.next_to(0);
            let first = &self.tokens[0];
            let skipped = matches!(first.kind, COMMENT | b'(' | SQL_TYPE) || first.is_unary();
            if !skipped {
                break;
            }
        }
        if !more {
            return 0;
        }
        count += 1;
        loop {
            if count >= TOKENS_MAX && self.repeats() {
                if count > TOKENS_MAX {
                    self.tokens[1] = self.tokens[TOKENS_MAX];
                    count = 2;
                } else {
                    count = 1;
                }
                left = 0;
            }
            if !more || left >= TOKENS_MAX {
                left = count;
                break;
            }
            self.fill(2, &mut count, left, &mut more, &mut last_comment);
            if count - left < 2 {
                left = count;
                continue;
            }
            match self.fold_two(left) {
                Two::Folded { count: by, left: to } => {
                    count -= by;
                    left = to;
                    continue;
                }
                Two::Evil => return left + 2,
                Two::Collated => left = 0,
                Two::No => {}
            }
            self.fill(3, &mut count, left, &mut more, &mut last_comment);
            if count - left < 3 {
                left = count;
                continue;
            }
            if let Some(by) = self.fold_three(left) {
                count -= by;
                left = 0;
                continue;
            }
            left += 1;
        }
        if left < TOKENS_MAX && last_comment.kind == COMMENT {
            self.tokens[left] = last_comment;
            left += 1;
        }
        left.min(TOKENS_MAX)
    }

    /// Reads until there are so many tokens to fold.
    fn fill(
        &mut self,
        wanted: usize,
        count: &mut usize,
        left: usize,
        more: &mut bool,
        last_comment: &mut Token,
    ) {
        while *more && *count <= TOKENS_MAX && *count - left < wanted {
            *more = self.next_to(*count);
            if *more {
                if self.tokens[*count].kind == COMMENT {
                    *last_comment = self.tokens[*count];
                } else {
                    last_comment.kind = NOTHING;
                    *count += 1;
                }
            }
        }
    }

    /// Whether the first five tokens are an expression that is worth one.
    fn repeats(&self) -> bool {
        let kind = |n: usize| self.tokens[n].kind;
        matches!(
            (kind(0), kind(1), kind(2), kind(3), kind(4)),
            (NUMBER, OPERATOR | b',', b'(', NUMBER, b')')
                | (BAREWORD, OPERATOR, b'(', BAREWORD | NUMBER, b')')
                | (NUMBER, b')', b',', b'(', NUMBER)
                | (BAREWORD, b')', OPERATOR, b'(', BAREWORD)
        )
    }

    fn fold_two(&mut self, left: usize) -> Two {
        let back = left.saturating_sub(1);
        let (one, two) = (self.tokens[left], self.tokens[left + 1]);
        let fold = |count: usize, left: usize| Two::Folded { count, left };
        match (one.kind, two.kind) {
            (STRING, STRING) | (b';', b';') => return fold(1, left),
            (OPERATOR | LOGIC, _) if two.is_unary() || two.kind == SQL_TYPE => return fold(1, 0),
            (b'(', _) if two.is_unary() => return fold(1, back),
            _ => {}
        }
        if self.joins(left) {
            return fold(1, back);
        }
        match (one.kind, two.kind) {
            // Only Transact-SQL begins a statement with IF.
            (b';', FUNCTION)
                if two.text().get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case(b"IF")) =>
            {
                self.tokens[left + 1].kind = TSQL;
                fold(0, left)
            }
            (BAREWORD | VARIABLE, b'(') if FUNCTIONS.iter().any(|name| one.is(name)) => {
                self.tokens[left].kind = FUNCTION;
                fold(0, left)
            }
            (KEYWORD, _) if one.is("IN") || one.is("NOT IN") => {
                self.tokens[left].kind = if two.kind == b'(' { OPERATOR } else { BAREWORD };
                fold(0, left)
            }
            (OPERATOR, _) if one.is("LIKE") || one.is("NOT LIKE") => {
                if two.kind == b'(' {
                    self.tokens[left].kind = FUNCTION;
                }
                Two::No
            }
            (SQL_TYPE, BAREWORD | NUMBER | SQL_TYPE | b'(' | FUNCTION | VARIABLE | STRING) => {
                self.tokens[left] = two;
                fold(1, 0)
            }
            (COLLATE, BAREWORD) => {
                // There are many collations; those with an underscore are taken for one.
                let text = two.text();
                if text[..span(text, |byte| byte != 0)].contains(&b'_') {
                    self.tokens[left + 1].kind = SQL_TYPE;
                    return Two::Collated;
                }
                Two::No
            }
            (BACKSLASH, _) => {
                if two.is_arithmetic() {
                    self.tokens[left].kind = NUMBER;
                    return fold(0, 0);
                }
                self.tokens[left] = two;
                fold(1, 0)
            }
            (b'(', b'(') | (b')', b')') => fold(1, 0),
            (b'{', BAREWORD) => {
                if two.len == 0 {
                    self.tokens[left + 1].kind = EVIL;
                    return Two::Evil;
                }
                fold(2, 0)
            }
            (_, b'}') => fold(1, 0),
            _ => Two::No,
        }
    }

    /// Joins two words that are a phrase, such as `UNION ALL`.
    fn joins(&mut self, left: usize) -> bool {
        let (one, two) = (&self.tokens[left], &self.tokens[left + 1]);
        if !one.joins(false) || !two.joins(true) {
            return false;
        }
        let (first, second) = (one.text(), two.text());
        let len = first.len() + 1 + second.len();
        if len > TEXT_BYTES_MAX {
            return false;
        }
        let mut phrase = [b' '; TEXT_BYTES_MAX];
        phrase[..first.len()].copy_from_slice(first);
        phrase[first.len() + 1..len].copy_from_slice(second);
        let Some(kind) = words::kind(&phrase[..len]) else { return false };
        self.tokens[left].assign(kind, &phrase[..len]);
        true
    }

    /// How many tokens fewer there are; `None` when nothing folds.
    fn fold_three(&mut self, left: usize) -> Option<usize> {
        let [one, two, three] = [self.tokens[left], self.tokens[left + 1], self.tokens[left + 2]];
        match (one.kind, two.kind, three.kind) {
            (NUMBER, OPERATOR, NUMBER) | (LOGIC, _, LOGIC) => Some(2),
            (OPERATOR, middle, OPERATOR) if middle != b'(' => Some(2),
            (VARIABLE, OPERATOR, VARIABLE | NUMBER | BAREWORD) => Some(2),
            (BAREWORD | NUMBER, OPERATOR, NUMBER | BAREWORD) => Some(2),
            (BAREWORD | NUMBER | VARIABLE | STRING, OPERATOR, SQL_TYPE) if two.text() == b"::" => Some(2),
            (BAREWORD | NUMBER | STRING | VARIABLE, b',', NUMBER | BAREWORD | STRING | VARIABLE) => Some(2),
            (EXPRESSION | GROUP | b',', _, b'(') if two.is_unary() => Some(self.drop_second(left, three, 1)),
            (KEYWORD | EXPRESSION | GROUP, _, NUMBER | BAREWORD | VARIABLE | STRING | FUNCTION)
                if two.is_unary() =>
            {
                Some(self.drop_second(left, three, 1))
            }
            // `1,-1` is worth `1`: go back over the comma, too.
            (b',', _, NUMBER | BAREWORD | VARIABLE | STRING) if two.is_unary() => {
                Some(self.drop_second(left, three, 3))
            }
            (b',', _, FUNCTION) if two.is_unary() => Some(self.drop_second(left, three, 1)),
            (BAREWORD, b'.', BAREWORD) => Some(2),
            (EXPRESSION, b'.', BAREWORD) => Some(self.drop_second(left, three, 1)),
            (FUNCTION, b'(', last) if last != b')' => {
                // USER takes no arguments; with some it is a word.
                if one.is("USER") {
                    self.tokens[left].kind = BAREWORD;
                }
                None
            }
            _ => None,
        }
    }

    fn drop_second(&mut self, left: usize, third: Token, count: usize) -> usize {
        self.tokens[left + 1] = third;
        count
    }

    // Tokens.

    /// Reads the next token.
    fn next(&mut self, token: &mut Token) -> bool {
        if self.at == 0 && self.quote != NOTHING {
            self.string(token, 0, 0, self.quote);
            return true;
        }
        while let Some(&byte) = self.value.get(self.at) {
            self.one(byte, token);
            if token.kind != NOTHING {
                return true;
            }
        }
        false
    }

    fn one(&mut self, byte: u8, token: &mut Token) {
        match byte {
            0..=32 | 127 | 160 => self.at += 1,
            b'"' | b'\'' => self.string(token, self.at, 1, byte),
            b'#' => self.hash(token),
            b'$' => self.money(token),
            b'%' | b'+' | b'^' | b'~' => self.char(token, OPERATOR),
            b'!' | b'&' | b'*' | b':' | b'<' | b'=' | b'>' | b'|' => self.operator(token),
            b'(' | b')' | b',' | b';' | b'{' | b'}' => self.char(token, byte),
            b'-' => self.dash(token),
            b'.' | b'0'..=b'9' => self.number(token),
            b'/' => self.slash(token),
            b'?' | b']' => self.char(token, UNKNOWN),
            b'@' => self.variable(token),
            b'[' => self.bracket_word(token),
            b'\\' => self.backslash(token),
            b'`' => self.tick(token),
            b'B' | b'b' => self.literal(token, |digit| matches!(digit, b'0' | b'1')),
            b'X' | b'x' => self.literal(token, |digit| digit.is_ascii_hexdigit()),
            b'E' | b'e' => self.escaped_string(token),
            b'N' | b'n' => {
                if self.at + 2 < self.value.len() && self.byte(self.at + 1) == b'\'' {
                    self.escaped_string(token);
                } else {
                    self.oracle_string(token, 1);
                }
            }
            b'Q' | b'q' => self.oracle_string(token, 0),
            b'U' | b'u' => self.unicode_string(token),
            _ => self.word(token),
        }
    }

    /// Takes a token of this length.
    fn take(&mut self, token: &mut Token, kind: u8, len: usize) {
        token.assign(kind, &self.value[self.at..self.at + len]);
        self.at += len;
    }

    fn char(&mut self, token: &mut Token, kind: u8) {
        self.take(token, kind, 1);
    }

    fn rest(&self) -> &'v [u8] {
        &self.value[self.at..]
    }

    /// A comment up to the end of the line.
    fn line_comment(&mut self, token: &mut Token) {
        let end = memchr::memchr(b'\n', self.rest());
        self.take(token, COMMENT, end.unwrap_or(self.rest().len()));
        self.at += usize::from(end.is_some());
    }

    fn hash(&mut self, token: &mut Token) {
        self.reads_otherwise_in_mysql = true;
        if self.mysql { self.line_comment(token) } else { self.char(token, OPERATOR) }
    }

    /// `--` is a comment everywhere when white space or the end follows, and in MySQL only then.
    fn dash(&mut self, token: &mut Token) {
        match self.rest() {
            [_, b'-', next, ..] if is_white(*next) => self.line_comment(token),
            [_, b'-'] => self.line_comment(token),
            [_, b'-', ..] if !self.mysql => {
                self.reads_otherwise_in_mysql = true;
                self.line_comment(token);
            }
            _ => self.char(token, OPERATOR),
        }
    }

    /// Comments in which others begin, and MySQL's conditional ones, cannot be read for certain.
    fn slash(&mut self, token: &mut Token) {
        let rest = self.rest();
        if self.byte(self.at + 1) != b'*' || rest.len() < 2 {
            return self.char(token, OPERATOR);
        }
        let end = memchr::memmem::find(&rest[2..], b"*/");
        let nested = end.is_some_and(|end| memchr::memmem::find(&rest[2..end + 3], b"/*").is_some());
        let conditional = rest.get(2) == Some(&b'!');
        let kind = if nested || conditional { EVIL } else { COMMENT };
        self.take(token, kind, end.map_or(rest.len(), |end| end + 4));
    }

    /// `\N` is NULL in MySQL.
    fn backslash(&mut self, token: &mut Token) {
        match self.rest() {
            [_, b'N', ..] => self.take(token, NUMBER, 2),
            _ => self.char(token, BACKSLASH),
        }
    }

    fn operator(&mut self, token: &mut Token) {
        let rest = self.rest();
        if rest.len() < 2 {
            return self.char(token, OPERATOR);
        }
        if rest.starts_with(b"<=>") {
            return self.take(token, OPERATOR, 3);
        }
        match words::kind(&rest[..2]) {
            Some(kind) => self.take(token, kind, 2),
            None if rest[0] == b':' => self.char(token, COLON),
            None => self.char(token, OPERATOR),
        }
    }

    /// A string after `skip` bytes from `from`; without any, the value begins inside of it.
    fn string(&mut self, token: &mut Token, from: usize, skip: usize, quote: u8) {
        let begin = from + skip;
        token.open = if skip > 0 { quote } else { NOTHING };
        let mut at = begin;
        loop {
            let Some(found) = self.value.get(at..).and_then(|rest| memchr::memchr(quote, rest)) else {
                token.assign(STRING, self.value.get(begin..).unwrap_or_default());
                token.close = NOTHING;
                self.at = self.value.len();
                return;
            };
            let end = at + found;
            let slashes = self.value[begin..end].iter().rev().take_while(|byte| **byte == b'\\').count();
            if slashes % 2 == 1 {
                at = end + 1;
            } else if self.value.get(end + 1) == Some(&quote) {
                at = end + 2;
            } else {
                token.assign(STRING, &self.value[begin..end]);
                token.close = quote;
                self.at = end + 1;
                return;
            }
        }
    }

    /// `E'…'`, `N'…'`.
    fn escaped_string(&mut self, token: &mut Token) {
        if self.at + 2 >= self.value.len() || self.byte(self.at + 1) != b'\'' {
            return self.word(token);
        }
        self.string(token, self.at, 2, b'\'');
    }

    /// `U&'…'`.
    fn unicode_string(&mut self, token: &mut Token) {
        match self.rest() {
            [_, b'&', b'\'', ..] => {
                self.string(token, self.at + 2, 1, b'\'');
                token.open = b'u';
                if token.close == b'\'' {
                    token.close = b'u';
                }
            }
            _ => self.word(token),
        }
    }

    /// Oracle's `q'(…)'` and `nq'(…)'`.
    fn oracle_string(&mut self, token: &mut Token, skip: usize) {
        let at = self.at + skip;
        let open = match self.value.get(at..) {
            // Bytes beyond ASCII are negative in C and so less than a space.
            Some([b'q' | b'Q', b'\'', open, ..]) if (33..0x80).contains(open) => *open,
            _ => return self.word(token),
        };
        let close = match open {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            other => other,
        };
        let begin = at + 3;
        let text = &self.value[begin..];
        token.open = b'q';
        match memchr::memmem::find(text, &[close, b'\'']) {
            Some(end) => {
                token.assign(STRING, &text[..end]);
                token.close = b'q';
                self.at = begin + end + 2;
            }
            None => {
                token.assign(STRING, text);
                token.close = NOTHING;
                self.at = self.value.len();
            }
        }
    }

    /// `b'01'`, `x'0f'`.
    fn literal(&mut self, token: &mut Token, is_digit: fn(u8) -> bool) {
        let rest = self.rest();
        if rest.len() < 3 || rest[1] != b'\'' {
            return self.word(token);
        }
        let digits = span(&rest[2..], |byte| is_digit(byte) || byte == 0);
        if rest.get(2 + digits) != Some(&b'\'') {
            return self.word(token);
        }
        self.take(token, NUMBER, digits + 3);
    }

    /// SQL Server's `[name]`.
    fn bracket_word(&mut self, token: &mut Token) {
        let end = memchr::memchr(b']', self.rest());
        self.take(token, BAREWORD, end.map_or(self.rest().len(), |end| end + 1));
    }

    fn word(&mut self, token: &mut Token) {
        let len = span(self.rest(), |byte| !ends_word(byte));
        token.assign(BAREWORD, &self.rest()[..len]);
        // `SELECT.1` and `SELECT`column``.
        for at in 0..usize::from(token.len) {
            if matches!(token.text[at], b'.' | b'`') {
                let kind = words::kind(&token.text[..at]).filter(|kind| *kind != BAREWORD);
                if let Some(kind) = kind {
                    *token = Token::NONE;
                    return self.take(token, kind, at);
                }
            }
        }
        if len <= TEXT_BYTES_MAX {
            token.kind = words::kind(token.text()).unwrap_or(BAREWORD);
        }
        self.at += len;
    }

    /// MySQL's quoted names: functions stay what they are.
    fn tick(&mut self, token: &mut Token) {
        self.string(token, self.at, 1, b'`');
        token.kind = match words::kind(token.text()) {
            Some(FUNCTION) => FUNCTION,
            _ => BAREWORD,
        };
    }

    fn variable(&mut self, token: &mut Token) {
        self.at += if self.byte(self.at + 1) == b'@' && self.at + 1 < self.value.len() { 2 } else { 1 };
        match self.value.get(self.at) {
            Some(b'`') => self.tick(token),
            Some(quote @ (b'\'' | b'"')) => self.string(token, self.at, 1, *quote),
            _ => {
                let len = span(self.value.get(self.at..).unwrap_or_default(), |byte| !ends_name(byte));
                return self.take(token, VARIABLE, len);
            }
        }
        token.kind = VARIABLE;
    }

    /// `$1,000.00`, `$$…$$`, `$tag$…$tag$`.
    fn money(&mut self, token: &mut Token) {
        let rest = self.rest();
        let after = &rest[1..];
        if after.is_empty() {
            return self.char(token, BAREWORD);
        }
        let digits = span(after, |byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | 0));
        if digits == 1 && after[0] == b'.' {
            return self.word(token);
        }
        if digits > 0 {
            return self.take(token, NUMBER, 1 + digits);
        }
        let tag =
            if after[0] == b'$' { 0 } else { span(after, |byte| byte.is_ascii_alphabetic() || byte == 0) };
        if after[0] != b'$' && tag == 0 || after.get(tag) != Some(&b'$') {
            return self.char(token, BAREWORD);
        }
        let mark = &rest[..tag + 2];
        let text = &rest[tag + 2..];
        token.open = b'$';
        match memchr::memmem::find(text, mark) {
            Some(end) => {
                token.assign(STRING, &text[..end]);
                token.close = b'$';
                self.at += mark.len() + end + mark.len();
            }
            None => {
                token.assign(STRING, text);
                token.close = NOTHING;
                self.at = self.value.len();
            }
        }
    }

    fn number(&mut self, token: &mut Token) {
        let rest = self.rest();
        let is_digit: Option<fn(u8) -> bool> = match rest {
            [b'0', b'x' | b'X', ..] => Some(|byte| byte.is_ascii_hexdigit() || byte == 0),
            [b'0', b'b' | b'B', ..] => Some(|byte| matches!(byte, b'0' | b'1' | 0)),
            _ => None,
        };
        if let Some(is_digit) = is_digit {
            let digits = span(&rest[2..], is_digit);
            let kind = if digits == 0 { BAREWORD } else { NUMBER };
            return self.take(token, kind, 2 + digits);
        }
        let digits = |from: usize| span(&rest[from..], |byte| byte.is_ascii_digit());
        let mut len = digits(0);
        if rest.get(len) == Some(&b'.') {
            len += 1;
            len += digits(len);
            if len == 1 {
                return self.take(token, b'.', 1);
            }
        }
        // `1.e`, an exponent without digits, makes it a word.
        let mut is_word = false;
        if matches!(rest.get(len), Some(b'e' | b'E')) {
            len += 1;
            if matches!(rest.get(len), Some(b'+' | b'-')) {
                len += 1;
            }
            let exponent = digits(len);
            is_word = exponent == 0;
            len += exponent;
        }
        // Oracle's suffixes.
        if matches!(rest.get(len), Some(b'd' | b'D' | b'f' | b'F')) {
            match rest.get(len + 1) {
                None => len += 1,
                Some(next) if is_white(*next) || matches!(next, b';' | b'u' | b'U') => len += 1,
                Some(_) => {}
            }
        }
        self.take(token, if is_word { BAREWORD } else { NUMBER }, len);
    }
}

/// What came of looking at two tokens.
enum Two {
    No,
    /// So many tokens fewer; from here on it is to be folded.
    Folded {
        count: usize,
        left: usize,
    },
    Evil,
    /// Nothing folded, but what follows begins with the first token.
    Collated,
}

/// Words that are functions when a parenthesis follows.
const FUNCTIONS: &[&str] = &[
    "USER_ID",
    "USER_NAME",
    "DATABASE",
    "PASSWORD",
    "USER",
    "CURRENT_USER",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
];
