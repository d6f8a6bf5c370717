
begin
{{statements}}
    return null;
end
