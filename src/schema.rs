//! The types of columns and rows. Pure data; `expression` knows what may be done with them.

use std::fmt;
use std::sync::Arc;

/// A column's type. See LANGUAGE in `docs/` for their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// The type of a bare `NULL`; it becomes any other type.
    Null,
    Boolean,
    Int,
    Bigint,
    Double,
    /// `precision` digits in all (1 to 38), `scale` of them after the point.
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    Bytes,
    Date,
    Timestamp,
    Interval,
    Array(Arc<Type>),
    /// Keys are strings.
    Map(Arc<Type>),
    Struct(Arc<[Column]>),
    Json,
}

/// A named, typed place in a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    pub name: Arc<str>,
    pub ty: Type,
    pub nullable: bool,
}

impl Column {
    pub fn new(name: impl AsRef<str>, ty: Type, nullable: bool) -> Self {
        Self { name: Arc::from(name.as_ref()), ty, nullable }
    }
}

/// The columns of a row, in slot order. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema(Arc<[Column]>);

impl Schema {
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self(columns.into_iter().collect())
    }

    pub fn empty() -> Self {
        Self::new([])
    }

    pub fn columns(&self) -> &[Column] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The slot of the column of that name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| &*column.name == name)
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.0.iter().find(|column| &*column.name == name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::Int => f.write_str("INT"),
            Self::Bigint => f.write_str("BIGINT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal { precision, scale } => write!(f, "DECIMAL({precision},{scale})"),
            Self::String => f.write_str("STRING"),
            Self::Bytes => f.write_str("BYTES"),
            Self::Date => f.write_str("DATE"),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::Interval => f.write_str("INTERVAL"),
            Self::Array(element) => write!(f, "ARRAY<{element}>"),
            Self::Map(value) => write!(f, "MAP<STRING,{value}>"),
            Self::Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (index, field) in fields.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{field}")?;
                }
                f.write_str(">")
            }
            Self::Json => f.write_str("JSON"),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.ty)?;
        if !self.nullable {
            f.write_str(" NOT NULL")?;
        }
        Ok(())
    }
}
