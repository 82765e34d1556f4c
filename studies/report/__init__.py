"""One self-contained HTML page of a study; it reads plain records, frames and documents."""
