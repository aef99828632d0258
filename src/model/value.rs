//! Values of samples: their types, single and in columns.

/// The physical type of a series. Written on disk; numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ValueType {
    /// IEEE 754 double; every bit pattern is kept.
    F64 = 1,
    /// Signed 64-bit integer.
    I64 = 2,
    /// A string of bytes: events, text.
    Bytes = 3,
    // 4 is kept for native histograms.
}

impl ValueType {
    /// The type with this number on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(ValueType::F64),
            2 => Some(ValueType::I64),
            3 => Some(ValueType::Bytes),
            _ => None,
        }
    }

    /// The name that tools show.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::F64 => "f64",
            ValueType::I64 => "i64",
            ValueType::Bytes => "bytes",
        }
    }
}

/// The bits of the NaN by which Prometheus marks that a series has ended ("staleness marker").
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether `value` is the staleness marker, by its bits.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A double.
    F64(f64),
    /// An integer.
    I64(i64),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// One borrowed value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// A double.
    F64(f64),
    /// An integer.
    I64(i64),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl ValueRef<'_> {
    /// Its type.
    pub fn value_type(self) -> ValueType {
        match self {
            ValueRef::F64(_) => ValueType::F64,
            ValueRef::I64(_) => ValueType::I64,
            ValueRef::Bytes(_) => ValueType::Bytes,
        }
    }

    /// An owned copy.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::F64(v) => Value::F64(v),
            ValueRef::I64(v) => Value::I64(v),
            ValueRef::Bytes(v) => Value::Bytes(v.to_vec()),
        }
    }
}

impl Value {
    /// A borrowed view.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::F64(v) => ValueRef::F64(*v),
            Value::I64(v) => ValueRef::I64(*v),
            Value::Bytes(v) => ValueRef::Bytes(v),
        }
    }
}

pub(crate) mod sealed {
    /// Keeps [`super::SampleValue`] to the crate's own types.
    #[allow(unreachable_pub)]
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl Sealed for Vec<u8> {}
}

/// A Rust type that a series can hold: `f64`, `i64`, `Vec<u8>`.
pub trait SampleValue: sealed::Sealed + Clone + Send + Sync + 'static {
    /// The type on disk.
    const TYPE: ValueType;
    /// A borrowed view.
    fn as_value_ref(&self) -> ValueRef<'_>;
}

impl SampleValue for f64 {
    const TYPE: ValueType = ValueType::F64;
    fn as_value_ref(&self) -> ValueRef<'_> {
        ValueRef::F64(*self)
    }
}

impl SampleValue for i64 {
    const TYPE: ValueType = ValueType::I64;
    fn as_value_ref(&self) -> ValueRef<'_> {
        ValueRef::I64(*self)
    }
}

impl SampleValue for Vec<u8> {
    const TYPE: ValueType = ValueType::Bytes;
    fn as_value_ref(&self) -> ValueRef<'_> {
        ValueRef::Bytes(self)
    }
}

/// A column of byte strings: one buffer and the end of each string in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BytesColumn {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl BytesColumn {
    /// How many strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Size of all strings together, in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a string. Panics when all strings together would exceed 4 GiB - 1.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a column of bytes stays below 4 GiB"));
    }

    /// The string at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? as usize };
        self.bytes.get(start..end)
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// Removes all strings, keeping the memory.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.bytes.clear();
    }
}

/// Values of one series, in the series' own type.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Doubles.
    F64(Vec<f64>),
    /// Integers.
    I64(Vec<i64>),
    /// Byte strings.
    Bytes(BytesColumn),
}

impl Column {
    /// An empty column of a type.
    pub fn new(value_type: ValueType) -> Self {
        match value_type {
            ValueType::F64 => Column::F64(Vec::new()),
            ValueType::I64 => Column::I64(Vec::new()),
            ValueType::Bytes => Column::Bytes(BytesColumn::default()),
        }
    }

    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Column::F64(_) => ValueType::F64,
            Column::I64(_) => ValueType::I64,
            Column::Bytes(_) => ValueType::Bytes,
        }
    }

    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Column::F64(v) => v.len(),
            Column::I64(v) => v.len(),
            Column::Bytes(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<ValueRef<'_>> {
        match self {
            Column::F64(v) => v.get(index).map(|v| ValueRef::F64(*v)),
            Column::I64(v) => v.get(index).map(|v| ValueRef::I64(*v)),
            Column::Bytes(v) => v.get(index).map(ValueRef::Bytes),
        }
    }

    /// Adds a value. Returns false, changing nothing, when it is of another type.
    pub fn push(&mut self, value: ValueRef<'_>) -> bool {
        match (self, value) {
            (Column::F64(column), ValueRef::F64(v)) => column.push(v),
            (Column::I64(column), ValueRef::I64(v)) => column.push(v),
            (Column::Bytes(column), ValueRef::Bytes(v)) => column.push(v),
            _ => return false,
        }
        true
    }

    /// Removes all values, keeping the memory.
    pub fn clear(&mut self) {
        match self {
            Column::F64(v) => v.clear(),
            Column::I64(v) => v.clear(),
            Column::Bytes(v) => v.clear(),
        }
    }
}
