//! What is bound to a question and read from an answer: whole numbers, texts and bytes. Truth is a number, 0 or 1.

use sqlx::{
    ColumnIndex, Decode, Error, Postgres, Row as _, Sqlite, Type, postgres::PgRow, sqlite::SqliteRow,
};
use std::convert::Infallible;

/// A value; nothing of its kind when `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// What can be bound.
pub(crate) trait Bind {
    /// Nothing of its kind.
    const NULL: Value;

    fn value(self) -> Value;
}

macro_rules! bind {
    ($($kind:ident $type:ty: $convert:expr;)*) => { $(
        impl Bind for $type {
            const NULL: Value = Value::$kind(None);

            fn value(self) -> Value {
                Value::$kind(Some($convert(self)))
            }
        }
    )* };
}

bind! {
    Number i64: i64::from;
    Number u32: i64::from;
    Number u8: i64::from;
    Number bool: i64::from;
    Text String: String::from;
    Text &str: str::to_owned;
    Text &String: String::clone;
    Bytes Vec<u8>: Vec::from;
    Bytes &[u8]: <[u8]>::to_vec;
}

impl<T: Bind> Bind for Option<T> {
    const NULL: Value = T::NULL;

    fn value(self) -> Value {
        self.map_or(Self::NULL, T::value)
    }
}

impl<'t, T> Bind for &'t Option<T>
where
    &'t T: Bind,
{
    const NULL: Value = <&T>::NULL;

    fn value(self) -> Value {
        self.as_ref().value()
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}

impl Row {
    /// The value of a column, by its number or name.
    pub(crate) fn try_get<'r, T, I>(&'r self, index: I) -> sqlx::Result<T>
    where
        T: Read<'r>,
        I: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    {
        let column = match self {
            Self::Sqlite(row) => index.index(row)?,
            Self::Postgres(row) => index.index(row)?,
        };
        T::read(self, column)
    }

    fn kept<'r, T>(&'r self, column: usize) -> sqlx::Result<T>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

/// What can be read from a column.
pub(crate) trait Read<'r>: Sized {
    fn read(row: &'r Row, column: usize) -> sqlx::Result<Self>;
}

macro_rules! read {
    ($($type:ty as $kept:ty: $convert:expr;)*) => { $(
        impl<'r> Read<'r> for $type {
            fn read(row: &'r Row, column: usize) -> sqlx::Result<Self> {
                let kept: $kept = row.kept(column)?;
                $convert(kept).map_err(|error| undecoded(column, error))
            }
        }

        impl<'r> Read<'r> for Option<$type> {
            fn read(row: &'r Row, column: usize) -> sqlx::Result<Self> {
                let kept: Option<$kept> = row.kept(column)?;
                kept.map($convert).transpose().map_err(|error| undecoded(column, error))
            }
        }
    )* };
}

read! {
    i64 as i64: Ok::<_, Infallible>;
    u32 as i64: u32::try_from;
    u8 as i64: u8::try_from;
    bool as i64: |number| Ok::<_, Infallible>(number != 0);
    String as String: Ok::<_, Infallible>;
    &'r str as &'r str: Ok::<_, Infallible>;
    Vec<u8> as Vec<u8>: Ok::<_, Infallible>;
    &'r [u8] as &'r [u8]: Ok::<_, Infallible>;
}

fn undecoded(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::ColumnDecode { index: column.to_string(), source: Box::new(error) }
}
