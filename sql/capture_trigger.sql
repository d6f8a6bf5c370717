create or replace trigger {{trigger}} after {{event}} on {{on}}{{referencing}}
    for each {{level}} execute function {{function}}();
alter table {{on}} enable always trigger {{trigger}};
