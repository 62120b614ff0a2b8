//! What people write passes: words of several languages, quotes, sums, snippets of code.

use crate::{crs, run};
use bastide_waf::Verdict;

/// Texts that are no attack, and that the C library's readers of SQL and of scripts let pass.
const PROSE: &[&str] = &[
    "1 or 2 people will come, and 3 or 4 later",
    "It's fine; don't worry -- we'll select a table for you",
    "O'Neil's shop doesn't take \"returns\" after 14 days",
    "Please drop me a line, or update the order if you like",
    "Having friends over is nice, and so is having a quiet evening",
    "Select all that apply, then insert your card where it says so",
    "We met between 5 and 6; the price was 3 < 4 and 5 > 2",
    "Is 2 + 2 = 4? Yes, and 50% of 8 is 4.",
    "C# or C++, that's the question (R&D wants both)",
    "Meet me @ 10:30, gate #4, and bring the \"blue\" one",
    "He said 'no' and she said 'yes', so it's 1-1",
    "My cat likes order by the window, group by the sofa",
    "Wie geht's? Ich hätte gern zwei Stück – oder drei, falls möglich",
    "Straße 5, 8010 Graz; bitte klingeln bei „Müller“",
    "Das ist nicht wahr, und wenn doch: umso besser!",
    "Größe 43 oder 44? Für 59,90 € nehme ich beide.",
    "L'été dernier, j'ai vu l'exposition d'où vient ce tableau",
    "Qu'est-ce que c'est ? C'est l'heure d'aller à l'école.",
    "N'oubliez pas : « mieux vaut tard que jamais » !",
    "¿Dónde está la biblioteca? Está entre el café y el cine.",
    "Caffè, tè o cioccolata: che cosa preferisci?",
    "Jeśli chcesz, możemy się spotkać o 18:00",
    "お元気ですか。はい、元気です。",
    "Привет! Как дела? Всё хорошо, спасибо.",
    "https://shop.example.com/shoes?size=43&colour=blue",
    "ann.miller+news@example.com",
    "2026-11-24T10:00:00Z",
    "+43 316 555-0123 (ext. 7)",
    "a) first b) second c) third",
    "Dear Ann,\n\nthank you for your letter.\n\nYours,\nBob",
    "- milk\n- eggs\n- bread (2x)\n\nThat's all :-)",
    "5' 11\" tall, 80 kg",
    "50 % off everything! (except shoes & bags)",
    "e.g. this, i.e. that; cf. page 12, etc.",
    "TL;DR: works as expected, 10/10, would buy again",
];

/// Texts of which rules may have their own opinion; the readers have none.
const CODE: &[&str] = &[
    "The union of workers selected him from a list of ten",
    "let total = items.iter().map(|item| item.price).sum::<u32>();",
    "if (a < b) { return a; } else { return b; }",
    "const add = (x, y) => x + y;",
    "def greet(name): return f\"Hello {name}\"",
    "git commit -m 'fix: a typo' && git push",
    "#include <stdio.h>\nint main(void) { return 0; }",
    "x = y || z; i++;",
    "{\"key\": [1, 2, 3], \"other\": null}",
    "| a | b |\n|---|---|\n| 1 | 2 |",
];

#[test]
fn what_people_write_is_neither_sql_nor_script() {
    for text in PROSE.iter().chain(CODE) {
        assert_eq!(bastide_waf::injections(text.as_bytes()), (None, false), "{text}");
    }
}

#[test]
fn what_people_write_passes_debians_rules() {
    let mut refused = Vec::new();
    for text in PROSE {
        let json = format!("{{\"name\":\"Ann\",\"text\":{}}}", serde_json::Value::from(*text));
        for (kind, body) in [("application/json", json), ("application/x-www-form-urlencoded", form(text))] {
            let length = body.len().to_string();
            let headers = [crs::BROWSER, &[("Content-Type", kind), ("Content-Length", &length)]].concat();
            let (verdict, ids) = run(crs::blocking(), "POST", "/notes", &headers, body.as_bytes());
            if verdict != Verdict::Pass {
                refused.push(format!("{kind} {text} {ids:?}"));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

fn form(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        b' ' => "+".into(),
        _ => format!("%{byte:02X}"),
    });
    format!("text={}", encoded.collect::<Vec<_>>().concat())
}
