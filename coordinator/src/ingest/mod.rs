//! Rows on their way in: COPY text to columns, columns to chunks.
